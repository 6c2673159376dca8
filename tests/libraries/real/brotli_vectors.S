/* brotli's own test vectors. */
    .macro vector name, file
    .globl \name
    .globl \name\()_end
\name:
    .incbin "\file"
\name\()_end:
    .byte 0
    .endm

    .section .rodata
    vector empty "tests/testdata/empty.compressed"
    vector ukkonooa "tests/testdata/ukkonooa.compressed"
    vector ukkonooa_plain "tests/testdata/ukkonooa"
    vector text "docs/brotli.1"
    .section .note.GNU-stack, "", @progbits
