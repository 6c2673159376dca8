/* An address in its text that would have to be written: refused. */
    .text
    .globl text_address
    .type text_address, @function
text_address:
    movabs $text_word, %rax
    ret
    .data
    .globl text_word
text_word:
    .quad 1
    .section .note.GNU-stack, "", @progbits
