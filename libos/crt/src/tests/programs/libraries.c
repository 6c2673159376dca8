/* Real libraries at work. */
#include <brotli/decode.h>
#include <brotli/encode.h>
#include <expat.h>
#include <png.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static unsigned char data[200000], packed[250000], again[200000];

static void fill(void) {
    unsigned state = 1;
    for (size_t i = 0; i < sizeof data; i++) {
        state = state * 1103515245 + 12345;
        data[i] = (state >> 16) % (i % 1000 < 700 ? 5 : 256);
    }
}

static void compress_all(void) {
    for (int level = 0; level <= 9; level++) {
        uLongf size = sizeof packed, back = sizeof again;
        int one = compress2(packed, &size, data, sizeof data, level);
        int two = uncompress(again, &back, packed, size);
        printf("zlib %d: %d %d %lu %d %lx\n", level, one, two, size, memcmp(data, again, sizeof data), crc32(0, packed, size));
    }
    size_t size = sizeof packed, back = sizeof again;
    int one = BrotliEncoderCompress(5, 22, BROTLI_MODE_GENERIC, sizeof data, data, &size, packed);
    int two = BrotliDecoderDecompress(size, packed, &back, again);
    printf("brotli: %d %d %zu %d\n", one, two, size, memcmp(data, again, sizeof data));
}

static int row(void *unused, int count, char **values, char **names) {
    (void)unused;
    for (int i = 0; i < count; i++)
        printf("%s=%s ", names[i], values[i] ? values[i] : "NULL");
    putchar('\n');
    return 0;
}

static void sql(void) {
    sqlite3 *base;
    char *message = NULL;
    printf("open %d\n", sqlite3_open(":memory:", &base));
    const char *statements[] = {
        "create table t(a integer primary key, b text, c real)",
        "with recursive n(i) as (select 1 union all select i+1 from n where i < 2000) insert into t select i, printf('%05d-%s', i, hex(i)), i / 7.0 from n",
        "create index bi on t(b)",
        "select count(*), sum(a), avg(c), min(b), max(b) from t",
        "select a, b, c from t where b like '%3E8%' or a in (1, 17) order by c desc limit 7",
        "select date(1700000000, 'unixepoch'), strftime('%H:%M:%f', 1700000000.25, 'unixepoch', 'localtime'), round(2.675, 2), sqrt(2)",
        "select json_extract('{\"a\":[1,2.5,\"x\"]}', '$.a[1]'), 1e308 * 10, 0.1 + 0.2, 9223372036854775807 + 1, cast('0x1f' as integer)",
        "begin; delete from t where a % 2; rollback; select count(*) from t",
        "attach ':memory:' as two; create table two.u as select * from t where a < 4; select group_concat(b) from two.u",
        "select nonsense",
        "pragma integrity_check",
    };
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        int result = sqlite3_exec(base, statements[i], row, NULL, &message);
        printf("%d %s\n", result, message ? message : "");
        sqlite3_free(message);
        message = NULL;
    }
    printf("close %d, no file %d\n", sqlite3_close(base), sqlite3_open("/no/such/folder/base", &base) == SQLITE_OK);
}

static void start(void *unused, const char *name, const char **attributes) {
    (void)unused;
    printf("<%s", name);
    for (; *attributes; attributes += 2)
        printf(" %s='%s'", attributes[0], attributes[1]);
    puts(">");
}

static void end(void *unused, const char *name) {
    (void)unused;
    printf("</%s>\n", name);
}

static void xml(void) {
    const char *text = "<?xml version='1.0'?><a b='1'><c d='&lt;x&gt;'/>text<e/></a>", *wrong = "<a><b></a>";
    XML_Parser parser = XML_ParserCreate(NULL);
    XML_SetElementHandler(parser, start, end);
    printf("expat %d\n", XML_Parse(parser, text, strlen(text), 1));
    XML_ParserReset(parser, NULL);
    printf("expat %d %s\n", XML_Parse(parser, wrong, strlen(wrong), 1), XML_ErrorString(XML_GetErrorCode(parser)));
    XML_ParserFree(parser);
}

static size_t written;

static void keep(png_structp png, png_bytep from, png_size_t count) {
    (void)png;
    memcpy(packed + written, from, count);
    written += count;
}

static void nothing(png_structp png) { (void)png; }

static void picture(void) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    if (setjmp(png_jmpbuf(png))) {
        puts("png: refused");
        png_destroy_write_struct(&png, &info);
        return;
    }
    png_set_write_fn(png, NULL, keep, nothing);
    png_set_IHDR(png, info, 100, 50, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < 50; y++)
        png_write_row(png, data + 300 * y);
    png_write_end(png, info);
    printf("png %zu %lx\n", written, crc32(0, packed, written));
    png_error(png, "by intent");
}

int main(void) {
    fill();
    compress_all();
    sql();
    xml();
    picture();
    return 0;
}
