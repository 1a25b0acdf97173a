/* What the test drivers of Wine's ntoskrnl.exe report with, over DbgPrint: `cargo xtask suite`.
 */

static LONG passed, failed, skipped;
static int line;
/* What Wine may get wrong, this kernel may not. */
static const int running_under_wine = 0;

static void report(const char *what, const char *format, va_list arguments)
{
    char text[400];
    _vsnprintf(text, sizeof(text) - 1, format, arguments);
    text[sizeof(text) - 1] = 0;
    DbgPrint("%s in line %d: %s", what, line, text);
}

static void suite_ok(int condition, const char *format, ...)
{
    va_list arguments;
    if (condition)
    {
        InterlockedIncrement(&passed);
        return;
    }
    InterlockedIncrement(&failed);
    va_start(arguments, format);
    report("wrong", format, arguments);
    va_end(arguments);
}

static void suite_skip(const char *format, ...)
{
    va_list arguments;
    InterlockedIncrement(&skipped);
    va_start(arguments, format);
    report("left out", format, arguments);
    va_end(arguments);
}

static void suite_trace(const char *format, ...)
{
    (void)format;
}

static inline int broken(int condition)
{
    return condition;
}

/* Where messages go, and what begins and ends with the driver. */
static inline NTSTATUS winetest_init(void) { return STATUS_SUCCESS; }
static inline void winetest_cleanup(void) { }
static inline void kprintf(const char *format, ...) { (void)format; }
static inline void winetest_push_context(const char *format, ...) { (void)format; }
static inline void winetest_pop_context(void) { }

#define in_line(number)   (line = (number), 0) ? (void)0 :
#define ok_(file, number) in_line(number) suite_ok
#define ok                in_line(__LINE__) suite_ok
#define skip              in_line(__LINE__) suite_skip
#define win_skip          in_line(__LINE__) suite_skip
#define trace             in_line(__LINE__) suite_trace
#define todo_wine         if (1)
#define todo_wine_if(is)  if (1)
#define todo_if(is)       if (1)
