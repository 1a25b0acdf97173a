/* DbgPrint and DbgPrintEx: the two C-variadic routines, which stable Rust cannot define. The formatting is in format.rs. */

#include <stdarg.h>
#include <stdint.h>

struct arguments {
    va_list list;
};

int32_t ksim_debug_print(uint32_t routine, const char *format, struct arguments *arguments);

uint64_t ksim_next_integer(struct arguments *arguments)
{
    return va_arg(arguments->list, uint64_t);
}

double ksim_next_double(struct arguments *arguments)
{
    return va_arg(arguments->list, double);
}

int32_t DbgPrint(const char *format, ...)
{
    struct arguments arguments;
    int32_t status;

    va_start(arguments.list, format);
    status = ksim_debug_print(0, format, &arguments);
    va_end(arguments.list);
    return status;
}

int32_t DbgPrintEx(uint32_t component, uint32_t level, const char *format, ...)
{
    struct arguments arguments;
    int32_t status;

    (void)component;
    (void)level;
    va_start(arguments.list, format);
    status = ksim_debug_print(1, format, &arguments);
    va_end(arguments.list);
    return status;
}
