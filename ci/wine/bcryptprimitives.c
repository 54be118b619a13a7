/* Rust's standard library takes its random numbers from ProcessPrng in bcryptprimitives.dll. Wine
 * has that DLL from version 10 on; without it a program ends before main, and says nothing. */
#include <windows.h>

/* RtlGenRandom, by the name that advapi32.dll exports. */
BOOLEAN NTAPI SystemFunction036(void *bytes, ULONG count);

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *bytes, SIZE_T count)
{
    while (count > 0) {
        ULONG step = count > 0x10000000 ? 0x10000000 : (ULONG)count;
        if (!SystemFunction036(bytes, step))
            return FALSE;
        bytes += step;
        count -= step;
    }
    return TRUE;
}
