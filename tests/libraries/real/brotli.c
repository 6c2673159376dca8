/* brotli's test vectors, and what its encoder makes of several kinds of data, through its
   decoder. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <brotli/decode.h>
#include <brotli/encode.h>

#define VECTOR(name) extern __attribute__((visibility("hidden"))) const uint8_t name[], name##_end[]
VECTOR(empty);
VECTOR(ukkonooa);
VECTOR(ukkonooa_plain);
VECTOR(text);

enum { MOST = 1 << 20 };
static uint8_t plain[MOST], packed[MOST + 4096], unpacked[MOST];

/* FNV-1a. */
static uint64_t hash(const uint8_t *data, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ data[i]) * 0x100000001b3;
    return hash;
}

/* Decodes with so many octets of input and output at a time; the length of what comes out, or
   -1. */
static long decode(const uint8_t *in, size_t length, size_t step)
{
    BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    size_t done = 0, in_left = 0, total = 0;
    uint8_t *out = unpacked;
    BrotliDecoderResult result = BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT;
    const uint8_t *next = in;
    while (result == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT || result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT) {
        if (result == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT) {
            if (done == length)
                break;
            in_left = length - done < step ? length - done : step;
            next = in + done;
            done += in_left;
        }
        size_t room = sizeof unpacked - total < step ? sizeof unpacked - total : step;
        if (room == 0)
            break;
        result = BrotliDecoderDecompressStream(state, &in_left, &next, &room, &out, &total);
    }
    if (result == BROTLI_DECODER_RESULT_ERROR)
        printf("error: %s\n", BrotliDecoderErrorString(BrotliDecoderGetErrorCode(state)));
    BrotliDecoderDestroyInstance(state);
    return result == BROTLI_DECODER_RESULT_SUCCESS ? (long)total : -1;
}

static int failures;

static void vector(const char *name, const uint8_t *in, const uint8_t *in_end, const uint8_t *out, const uint8_t *out_end)
{
    for (size_t step = 1; step <= 4096; step *= 8) {
        long length = decode(in, in_end - in, step);
        int right = length == out_end - out && memcmp(unpacked, out, length) == 0;
        printf("%s, %zu at a time: %ld octets, %s\n", name, step, length, right ? "right" : "WRONG");
        failures += !right;
    }
}

static void both_ways(const char *name, size_t length, int quality, int window)
{
    size_t packed_length = sizeof packed;
    int made = BrotliEncoderCompress(quality, window, BROTLI_MODE_GENERIC, length, plain, &packed_length, packed);
    long back = made ? decode(packed, packed_length, 1000) : -1;
    int right = back == (long)length && memcmp(plain, unpacked, length) == 0;
    printf("%s, quality %d, window %d: %zu octets to %zu (%016llx), %s\n", name, quality, window, length, packed_length,
           (unsigned long long)hash(packed, packed_length), right ? "right" : "WRONG");
    failures += !right;
    /* Damaged data give an error or other data, the same everywhere. */
    for (int i = 0; made && i < 8; i++) {
        size_t place = (packed_length * i + i) / 8 % packed_length;
        packed[place] ^= 1 << i;
        back = decode(packed, packed_length, 1000);
        printf("  damaged at %zu: %ld, %016llx\n", place, back, (unsigned long long)hash(unpacked, back < 0 ? 0 : back));
        packed[place] ^= 1 << i;
    }
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("decoder %x, encoder %x\n", BrotliDecoderVersion(), BrotliEncoderVersion());
    vector("empty", empty, empty_end, empty, empty);
    vector("ukkonooa", ukkonooa, ukkonooa_end, ukkonooa_plain, ukkonooa_plain_end);
    for (int quality = 0; quality <= 11; quality++) {
        memcpy(plain, text, text_end - text);
        both_ways("text", text_end - text, quality, 10 + quality);
    }
    uint32_t random = 1;
    for (size_t i = 0; i < 100000; i++) {
        random = random * 1664525 + 1013904223;
        plain[i] = random >> 24 & (i / 10000 % 2 ? 0xff : 0x0f);
    }
    both_ways("noise", 100000, 5, 16);
    both_ways("noise", 100000, 9, 22);
    memset(plain, 'a', MOST);
    both_ways("the same", MOST, 5, 22);
    return failures;
}
