/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * blockcount: a QEMU user-mode plugin (TCG plugin API 1, QEMU 6.0 to 8.x) that counts how often each translated block
 * of guest code runs between two markers, and how many cache lines a three-level data cache would fetch from memory;
 * both also for each part of the run.
 * QEMU's plugin interface is GPL-2; this file is a program of its own and is loaded by QEMU alone.
 *
 * A marker is the system call number MARKER with argument 2 (switch the memory model on: warm run), 1 (begin to count),
 * 3 (a part of the run ends) or 0 (end: write the counts).
 * Arguments: out=FILE, cache=KIB:WAYS[:KIB:WAYS[:KIB:WAYS]] (level 1 first; without it, no memory model),
 * skipped=FILE (what skip.c took out of the program, read at marker 2: counted as it was).
 *
 * Output, for each part that ended:      part MISSES_OF_THE_LAST_LEVEL
 *         and each block that ran in it: ran BLOCK COUNT
 * then, for each block that ran:         block BLOCK COUNT CODE       (CODE: the instruction words in hex)
 * and at the end:                        memory ACCESSES MISSES_OF_EACH_LEVEL...
 *                                        total INSTRUCTIONS BLOCKS
 *
 * The declarations below restate the documented interface: distributions ship no header for it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum { NO_REGISTERS = 0 };
enum { READS_AND_WRITES = 3 };
enum { INLINE_ADD_U64 = 0 };

typedef void (*translate_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*memory_cb)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *);
typedef void (*syscall_cb)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translate_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, memory_cb, int, int, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);

EXPORT int qemu_plugin_version = 1;

#define MARKER 0xb0b0 /* no Linux system call: the guest gets ENOSYS */
#define HINT 0xd5032fffu /* see skip.c */
#define LINE_SHIFT 6
#define MAX_LEVELS 3
#define BUCKETS (1u << 18)

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

typedef struct Block {
    uint64_t address, count, count_at_begin, count_at_part;
    uint32_t length, hash, number;
    uint32_t *code;
    struct Block *next, *older;
} Block;

static Block *buckets[BUCKETS], *newest;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *out_path = "blocks.txt";
static bool counting, modelling;

/* ---- instructions that skip.c took out --------------------------------------------------------------------------- */

typedef struct {
    uint64_t address, word;
} Skipped;

static const char *skipped_path;
static Skipped *skipped;
static size_t skipped_count;

static int by_address(const void *a, const void *b)
{
    uint64_t left = ((const Skipped *)a)->address, right = ((const Skipped *)b)->address;
    return (left > right) - (left < right);
}

static void read_skipped(void)
{
    FILE *file = fopen(skipped_path, "rb");
    bool read = file && !fseek(file, 0, SEEK_END);
    if (read) {
        skipped_count = (size_t)ftell(file) / sizeof *skipped;
        skipped = calloc(skipped_count + 1, sizeof *skipped);
        rewind(file);
        read = fread(skipped, sizeof *skipped, skipped_count, file) == skipped_count;
    }
    if (!read) {
        fprintf(stderr, "blockcount: %s cannot be read\n", skipped_path);
        exit(1);
    }
    fclose(file);
    qsort(skipped, skipped_count, sizeof *skipped, by_address);
}

static uint32_t word_at(const struct qemu_plugin_tb *tb, size_t i)
{
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
    if (word != HINT || !skipped_count)
        return word;
    Skipped key = {qemu_plugin_tb_vaddr(tb) + 4 * i, 0};
    const Skipped *found = bsearch(&key, skipped, skipped_count, sizeof key, by_address);
    return found ? (uint32_t)found->word : word;
}

/* The block of this translation; QEMU translates the same code again when its cache is flushed. */
static Block *find_block(const struct qemu_plugin_tb *tb)
{
    size_t length = qemu_plugin_tb_n_insns(tb);
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    uint32_t hash = 2166136261u; /* FNV-1a over the words */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ word_at(tb, i)) * 16777619u;
    Block **slot = &buckets[((uint32_t)(address >> 2) * 2654435761u + hash) % BUCKETS];
    for (Block *b = *slot; b; b = b->next)
        if (b->address == address && b->length == length && b->hash == hash)
            return b;
    Block *b = calloc(1, sizeof *b);
    b->address = address;
    b->length = (uint32_t)length;
    b->hash = hash;
    b->code = malloc(length * sizeof *b->code);
    for (size_t i = 0; i < length; i++)
        b->code[i] = word_at(tb, i);
    b->next = *slot;
    b->older = newest;
    b->number = newest ? newest->number + 1 : 0;
    *slot = newest = b;
    return b;
}

/* ---- data cache: levels with least-recently-used replacement ----------------------------------------------------- */

typedef struct {
    uint64_t sets, misses;
    unsigned ways;
    uint64_t *tags; /* line + 1; 0 is empty; each set ordered from newest to oldest */
} Level;

static Level levels[MAX_LEVELS];
static unsigned level_count;
static uint64_t accesses, newest_line = UINT64_MAX;

static bool hit(Level *level, uint64_t line)
{
    uint64_t *set = level->tags + (line % level->sets) * level->ways;
    unsigned i = 0;
    while (i < level->ways - 1 && set[i] != line + 1)
        i++;
    bool found = set[i] == line + 1;
    memmove(set + 1, set, i * sizeof *set);
    set[0] = line + 1;
    level->misses += !found;
    return found;
}

static void touch(uint64_t line)
{
    if (line == newest_line)
        return;
    newest_line = line;
    for (unsigned i = 0; i < level_count; i++)
        if (hit(&levels[i], line))
            return;
}

static void on_memory(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *unused)
{
    if (!modelling)
        return;
    uint64_t first = address >> LINE_SHIFT;
    uint64_t last = (address + (1u << qemu_plugin_mem_size_shift(info)) - 1) >> LINE_SHIFT;
    accesses++;
    touch(first);
    if (last != first)
        touch(last);
}

static void parse_caches(const char *text)
{
    char *rest = (char *)text;
    while (level_count < MAX_LEVELS && *rest) {
        Level *level = &levels[level_count++];
        uint64_t kib = strtoul(rest, &rest, 10);
        level->ways = (unsigned)strtoul(rest + (*rest == ':'), &rest, 10);
        rest += *rest == ':';
        level->sets = (kib << 10 >> LINE_SHIFT) / level->ways;
        level->tags = calloc(level->sets * level->ways, sizeof *level->tags);
    }
}

/* ---- markers and output ------------------------------------------------------------------------------------------ */

static FILE *out;
static uint64_t misses_at_part;

static uint64_t fetched(void)
{
    return level_count ? levels[level_count - 1].misses : 0;
}

static void begin(void)
{
    out = fopen(out_path, "w");
    if (!out) {
        perror(out_path);
        exit(1);
    }
    for (Block *b = newest; b; b = b->older)
        b->count_at_begin = b->count_at_part = b->count;
    for (unsigned i = 0; i < level_count; i++)
        levels[i].misses = 0;
    accesses = misses_at_part = 0;
    counting = modelling = true;
}

static void end_part(void)
{
    fprintf(out, "part %" PRIu64 "\n", fetched() - misses_at_part);
    misses_at_part = fetched();
    for (Block *b = newest; b; b = b->older) {
        if (b->count != b->count_at_part)
            fprintf(out, "ran %" PRIu32 " %" PRIu64 "\n", b->number, b->count - b->count_at_part);
        b->count_at_part = b->count;
    }
}

static void end(void)
{
    uint64_t instructions = 0, blocks = 0;
    counting = modelling = false;
    for (Block *b = newest; b; b = b->older) {
        uint64_t count = b->count - b->count_at_begin;
        if (!count)
            continue;
        instructions += count * b->length;
        blocks++;
        fprintf(out, "block %" PRIu32 " %" PRIu64 " ", b->number, count);
        for (uint32_t i = 0; i < b->length; i++)
            fprintf(out, "%08" PRIx32, b->code[i]);
        fputc('\n', out);
    }
    if (level_count) {
        fprintf(out, "memory %" PRIu64, accesses);
        for (unsigned i = 0; i < level_count; i++)
            fprintf(out, " %" PRIu64, levels[i].misses);
        fputc('\n', out);
    }
    fprintf(out, "total %" PRIu64 " %" PRIu64 "\n", instructions, blocks);
    fclose(out);
}

static void on_syscall(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t first, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number != MARKER)
        return;
    pthread_mutex_lock(&lock);
    if (first == 2) {
        if (skipped_path)
            read_skipped();
        modelling = true;
    }
    else if (first == 1)
        begin();
    else if (counting && first == 3)
        end_part();
    else if (counting)
        end();
    pthread_mutex_unlock(&lock);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    pthread_mutex_lock(&lock);
    Block *b = find_block(tb);
    pthread_mutex_unlock(&lock);
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &b->count, 1);
    for (size_t i = 0; level_count && i < b->length; i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_memory, NO_REGISTERS, READS_AND_WRITES,
                                         NULL);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            out_path = strdup(argv[i] + 4);
        else if (!strncmp(argv[i], "cache=", 6))
            parse_caches(argv[i] + 6);
        else if (!strncmp(argv[i], "skipped=", 8))
            skipped_path = strdup(argv[i] + 8);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
