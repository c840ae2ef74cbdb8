/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes the arithmetic on vectors out of the loaded program: what is counted does not depend on it, and an emulator
 * spends most of its time there (in the float multiply-add above all).
 *
 * Each instruction of PATTERNS becomes a HINT, which does nothing. The plugin (blockcount.c) is given a table of what
 * stood there, so that it counts the program as it was: instructions, their order and addresses are the same, and so are
 * loads and stores. Only values are wrong. It is done after the network is loaded, because weights are prepared then.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runner.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HINT 0xd5032fffu /* HINT #127: no operation, and in no program */
#define PAGE 4096u
#define ROWS 4096

/* Arm's reference manual (DDI 0487), C4.1: Advanced SIMD. Vectors only: no scalar, which may be part of an address. */
static const struct {
    uint32_t mask, bits;
} PATTERNS[] = {
    {0xbf20fc00, 0x0e20cc00}, {0xbf20fc00, 0x0ea0cc00}, /* fmla, fmls */
    {0xbf80f400, 0x0f801000}, {0xbf80f400, 0x0f805000}, /* by element */
    {0xbfe0fc00, 0x0e400c00}, {0xbfe0fc00, 0x0ec00c00}, /* half precision */
    {0xbfc0f400, 0x0f001000}, {0xbfc0f400, 0x0f005000}, /* half precision, by element */
    {0xbfa0fc00, 0x2e20dc00}, {0xbf80f400, 0x0f809000}, {0xbfe0fc00, 0x2e401c00}, {0xbfc0f400, 0x0f009000}, /* fmul */
    {0xbfa0fc00, 0x0e20d400}, {0xbfe0fc00, 0x0e401400}, /* fadd */
    {0xbfa0fc00, 0x0ea0d400}, {0xbfe0fc00, 0x0ec01400}, /* fsub */
    {0xbfa0fc00, 0x0e20f400}, {0xbfe0fc00, 0x0e403400}, /* fmax */
    {0xbfa0fc00, 0x0ea0f400}, {0xbfe0fc00, 0x0ec03400}, /* fmin */
    {0x9fe0fc00, 0x0e809400}, {0x9fc0f400, 0x0f80e000}, /* sdot, udot; by element */
};

typedef struct {
    uint64_t address, word;
} Skipped;

static bool is_arithmetic(uint32_t word)
{
    for (size_t i = 0; i < sizeof PATTERNS / sizeof *PATTERNS; i++)
        if ((word & PATTERNS[i].mask) == PATTERNS[i].bits)
            return true;
    return false;
}

/* Without the C library's buffers: the heap stays as it is in a run that skips nothing. */
static void write_table(int table, const Skipped *rows, size_t count)
{
    if (write(table, rows, count * sizeof *rows) != (ssize_t)(count * sizeof *rows))
        refuse("the table of skipped instructions cannot be written");
}

static void skip_section(uint32_t *words, size_t count, int table)
{
    static Skipped rows[ROWS];
    size_t filled = 0;
    uintptr_t first = (uintptr_t)words & ~(uintptr_t)(PAGE - 1);
    size_t length = (uintptr_t)(words + count) - first;
    if (mprotect((void *)first, length, PROT_READ | PROT_WRITE | PROT_EXEC))
        refuse("the code of the runtime cannot be changed");
    for (size_t i = 0; i < count; i++)
        if (is_arithmetic(words[i])) {
            rows[filled++] = (Skipped){(uintptr_t)(words + i), words[i]};
            words[i] = HINT;
            if (filled == ROWS)
                write_table(table, rows, filled), filled = 0;
        }
    write_table(table, rows, filled);
    mprotect((void *)first, length, PROT_READ | PROT_EXEC);
    __builtin___clear_cache((char *)words, (char *)(words + count));
}

/* The sections of code, by the file's section headers: a mapping with code may hold constants too. */
static int skip_object(struct dl_phdr_info *info, size_t size, void *table)
{
    (void)size;
    int file = open(*info->dlpi_name ? info->dlpi_name : "/proc/self/exe", O_RDONLY);
    struct stat facts;
    if (file < 0 || fstat(file, &facts))
        return 0; /* the kernel's own object */
    const char *bytes = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (bytes == MAP_FAILED)
        refuse("%s cannot be read", info->dlpi_name);
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)bytes;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(bytes + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++)
        if (sections[i].sh_type == SHT_PROGBITS && sections[i].sh_flags & SHF_EXECINSTR)
            skip_section((uint32_t *)(info->dlpi_addr + sections[i].sh_addr), sections[i].sh_size / 4, *(int *)table);
    munmap((void *)bytes, (size_t)facts.st_size);
    return 0;
}

void skip_arithmetic(const char *path)
{
    int table = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (table < 0)
        refuse("%s cannot be written", path);
    dl_iterate_phdr(skip_object, &table);
    if (close(table))
        refuse("%s cannot be written", path);
}
