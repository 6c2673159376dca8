/* Renders pages in three parts, each of which says which version has written it. */
#include <stdio.h>

#ifndef VERSION
#define VERSION 1
#endif

void *dlsym(void *library, const char *name);

static unsigned long rendered;

int page_header(char *out, unsigned long room, unsigned long number)
{
    return snprintf(out, room, "<header version=%d>page %lu</header>\n", VERSION, number);
}

int page_body(char *out, unsigned long room, unsigned long number)
{
    int length = snprintf(out, room, "<body version=%d>", VERSION);
    for (int line = 0; line < 10 * VERSION; line++)
        length += snprintf(out + length, room - length, "line %d of page %lu\n", line, number);
    return length + snprintf(out + length, room - length, "</body>\n");
}

int page_footer(char *out, unsigned long room, unsigned long number)
{
    __atomic_add_fetch(&rendered, 1, __ATOMIC_RELAXED);
    return snprintf(out, room, "<footer version=%d>page %lu</footer>\n", VERSION, number);
}

/* The number of pages rendered, by all versions. */
unsigned long page_rendered(void)
{
    return rendered;
}

int migrate(void *old, void *new)
{
    (void)new;
    unsigned long (*before)(void) = dlsym(old, "page_rendered");
    rendered = before();
    return 0;
}
