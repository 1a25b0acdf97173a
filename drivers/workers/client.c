// A process that uses the driver, for `cargo xtask wine workers`: requests that become pending and that worker threads complete. Exits with 0 if all
// is as it should be.

#include <stdio.h>
#include <windows.h>

#define ADD 0x222000
#define STATISTICS 0x222004

static int failures;

static void check(int good, const char *what)
{
    if (!good) {
        failures++;
        printf("wrong: %s (last error %lu)\n", what, GetLastError());
    }
}

static DWORD WINAPI add(void *parameter)
{
    HANDLE device = parameter;
    unsigned numbers[3] = {1, 2, 0xffffffff};
    unsigned long long sum = 0;
    DWORD length = 0;
    for (int round = 0; round < 10; round++) {
        numbers[0] = round;
        check(DeviceIoControl(device, ADD, numbers, sizeof numbers, &sum, sizeof sum, &length, NULL), "the request fails");
        check(length == sizeof sum && sum == 0x100000001ull + round, "the sum");
    }
    return 0;
}

int main(void)
{
    HANDLE device = CreateFileA("\\\\.\\Workers", GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    HANDLE threads[2];
    unsigned counts[3] = {0}, number = 0;
    DWORD length = 0;
    check(device != INVALID_HANDLE_VALUE, "the device cannot be opened");
    for (int i = 0; i < 2; i++)
        threads[i] = CreateThread(NULL, 0, add, device, 0, NULL);
    WaitForMultipleObjects(2, threads, TRUE, INFINITE);
    check(!DeviceIoControl(device, ADD, &number, 3, counts, 8, &length, NULL), "three bytes are no numbers");
    check(GetLastError() == ERROR_INVALID_PARAMETER, "the error of a bad length");
    check(!DeviceIoControl(device, ADD + 8, NULL, 0, NULL, 0, &length, NULL), "there is no such request");
    check(GetLastError() == ERROR_INVALID_FUNCTION, "the error of a bad code");
    check(DeviceIoControl(device, STATISTICS, NULL, 0, counts, sizeof counts, &length, NULL), "the statistics");
    check(length == sizeof counts && counts[0] == 21, "how many were completed");
    CloseHandle(device);
    printf("%d things are wrong\n", failures);
    return failures != 0;
}
