/* Needs `base`, and something that is nowhere. */
#include "libraries.h"

int nobody_has_this(void);

int missing_call(void)
{
    return nobody_has_this() + base_add(1, 1);
}
