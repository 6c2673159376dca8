/* zlib's own tests, but for those of files. */
#include <stdio.h>

#define main example_main
#include "test/example.c"
#undef main

#ifdef PUBLIC_ONLY
#define infcover_main() 0
#else
int infcover_main(void);
#endif

int main(void)
{
    static Byte packed[40000], unpacked[40000];
    uLong length = sizeof packed;

    setvbuf(stdout, NULL, _IOLBF, 0);
    /* The check values of the catalogue of CRCs, and of RFC 1950. */
    printf("crc32 %08lx, adler32 %08lx\n", crc32(0, (const Bytef *)"123456789", 9), adler32(1, (const Bytef *)"123456789", 9));
    /* As example.c does it. */
    test_compress(packed, length, unpacked, sizeof unpacked);
    test_deflate(packed, length);
    test_inflate(packed, length, unpacked, sizeof unpacked);
    test_large_deflate(packed, length, unpacked, sizeof unpacked);
    test_large_inflate(packed, length, unpacked, sizeof unpacked);
    test_flush(packed, &length);
    test_sync(packed, length, unpacked, sizeof unpacked);
    test_dict_deflate(packed, sizeof packed);
    test_dict_inflate(packed, sizeof packed, unpacked, sizeof unpacked);
    return infcover_main();
}
