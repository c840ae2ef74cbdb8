/* Crop-only JPEG decoding: only the rows and (in whole coding blocks) columns of a crop are decoded, at the smallest
 * of the sizes 1, 1/2, 1/4, 1/8 that is at least twice the output, then resized with PIL's antialiasing triangle or
 * cubic filter into one place of a batch [H, W, 3] of uint8. Needs libjpeg-turbo (jpeg_crop_scanline, JCS_EXT_RGBX).
 * Returns 0, or: 1 not decodable, 2 not RGB or grey (CMYK), 3 out of memory. Thread-safe: no state between calls. */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jpeglib.h>

enum { OK = 0, BROKEN = 1, OTHER_COLORS = 2, NO_MEMORY = 3, BITS = 14 };

typedef struct { struct jpeg_error_mgr manager; jmp_buf back; } Failure;
typedef struct { int *first, *count; int16_t *weight; int taps; } Filter;

static void fail(j_common_ptr info) { longjmp(((Failure *)info->err)->back, 1); }

/* libjpeg goes on after damaged data with a warning and grey pixels; PIL calls such a file broken, and so do we. */
static void warn(j_common_ptr info, int level) { if (level < 0) fail(info); }
static void silent(j_common_ptr info) { (void)info; }

static struct jpeg_error_mgr *failures_to(Failure *failure) {
    struct jpeg_error_mgr *manager = jpeg_std_error(&failure->manager);
    manager->error_exit = fail;
    manager->emit_message = warn;
    manager->output_message = silent;
    return manager;
}

int region_size(const uint8_t *data, unsigned long bytes, int *width, int *height) {
    struct jpeg_decompress_struct jpeg;
    Failure failure;
    jpeg.err = failures_to(&failure);
    if (setjmp(failure.back)) { jpeg_destroy_decompress(&jpeg); return BROKEN; }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, bytes);
    jpeg_read_header(&jpeg, TRUE);
    *width = jpeg.image_width;
    *height = jpeg.image_height;
    jpeg_destroy_decompress(&jpeg);
    return OK;
}

static double triangle(double x) { return x < 1 ? 1 - x : 0; }

/* Keys' cubic with a = -0.5, as PIL has it. */
static double cubic(double x) {
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static void drop(Filter *filter) { free(filter->first); free(filter->count); free(filter->weight); }

/* Weights of each output place over pixels [0, pixels) of a line whose crop starts at `begin` and is `length` long. */
static int make_filter(Filter *f, int pixels, double begin, double length, int size, int bicubic, int flip) {
    double scale = length / size, spread = scale > 1 ? scale : 1, support = (bicubic ? 2 : 1) * spread;
    f->taps = ((int)(2 * support) + 3) & ~1;
    f->first = malloc(size * sizeof(int));
    f->count = malloc(size * sizeof(int));
    f->weight = calloc((size_t)size * f->taps, sizeof(int16_t));
    double *exact = malloc(f->taps * sizeof(double));
    if (!f->first || !f->count || !f->weight || !exact) { free(exact); return NO_MEMORY; }
    for (int place = 0; place < size; place++) {
        int out = flip ? size - 1 - place : place;
        double center = begin + (place + 0.5) * scale, sum = 0;
        /* PIL crops first: pixels beside the crop have no weight. */
        int low = (int)fmax(fmax(center - support + 0.5, ceil(begin - 0.01)), 0);
        int high = (int)fmin(fmin(center + support + 0.5, floor(begin + length + 0.01)), pixels);
        if (low >= pixels) low = pixels - 1;
        if (high <= low) high = low + 1;
        if (high - low > f->taps) high = low + f->taps;
        for (int j = 0; j < high - low; j++) {
            double x = fabs(low + j - center + 0.5) / spread;
            exact[j] = bicubic ? cubic(x) : triangle(x);
            sum += exact[j];
        }
        if (sum == 0) exact[0] = sum = 1;
        f->first[out] = low;
        f->count[out] = high - low;
        for (int j = 0; j < high - low; j++)
            f->weight[(size_t)out * f->taps + j] = (int16_t)lrint(exact[j] / sum * (1 << BITS));
    }
    free(exact);
    return OK;
}

static inline uint8_t clip(int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value; }

#ifdef __AVX2__
#include <immintrin.h>
/* 16 bytes of two rows, multiplied by a pair of weights and added: low[8], high[8] hold the places in order of halves. */
static inline void add_rows(__m128i a, __m128i b, __m256i pair, __m256i *low, __m256i *high) {
    *low = _mm256_add_epi32(*low, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), pair));
    *high = _mm256_add_epi32(*high, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)), pair));
}
#endif

/* One output row before its horizontal pass: a weighted sum of decoded rows, RGBX bytes. */
static void blend_rows(const uint8_t *rows, size_t stride, const int16_t *weight, int count, uint8_t *line) {
    size_t i = 0;
#ifdef __AVX2__
    for (; i + 16 <= stride; i += 16) {
        __m256i low = _mm256_set1_epi32(1 << (BITS - 1)), high = low;
        for (int row = 0; row < count; row += 2) {
            const uint8_t *at = rows + row * stride + i;
            int last = row + 1 == count;
            int32_t pair = (uint16_t)weight[row] | (last ? 0 : (int32_t)((uint32_t)(uint16_t)weight[row + 1] << 16));
            __m128i a = _mm_loadu_si128((const __m128i *)at);
            __m128i b = last ? a : _mm_loadu_si128((const __m128i *)(at + stride));
            add_rows(a, b, _mm256_set1_epi32(pair), &low, &high);
        }
        __m256i packed = _mm256_packs_epi32(_mm256_srai_epi32(low, BITS), _mm256_srai_epi32(high, BITS));
        packed = _mm256_packus_epi16(packed, packed);
        __m128i even = _mm256_castsi256_si128(packed), odd = _mm256_extracti128_si256(packed, 1);
        _mm_storeu_si128((__m128i *)(line + i), _mm_unpacklo_epi32(even, odd));
    }
#endif
    for (; i < stride; i++) {
        int32_t sum = 1 << (BITS - 1);
        for (int row = 0; row < count; row++) sum += rows[row * stride + i] * weight[row];
        line[i] = clip(sum >> BITS);
    }
}

/* `line` may be read eight bytes past its last pixel. */
static void blend_columns(const uint8_t *line, const Filter *f, int size, uint8_t *out) {
    for (int place = 0; place < size; place++, out += 3) {
        const uint8_t *pixel = line + 4 * (size_t)f->first[place];
        const int16_t *weight = f->weight + (size_t)place * f->taps;
#ifdef __AVX2__
        const __m128i pairs = _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1);
        __m128i sum = _mm_set1_epi32(1 << (BITS - 1));
        for (int j = 0; j < f->count[place]; j += 2, pixel += 8) { /* weights past the count are zero */
            int32_t pair;
            memcpy(&pair, weight + j, 4);
            __m128i two = _mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)pixel), pairs);
            sum = _mm_add_epi32(sum, _mm_madd_epi16(two, _mm_set1_epi32(pair)));
        }
        sum = _mm_packs_epi32(_mm_srai_epi32(sum, BITS), sum);
        uint32_t colors = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(sum, sum));
        out[0] = (uint8_t)colors;
        out[1] = (uint8_t)(colors >> 8);
        out[2] = (uint8_t)(colors >> 16);
#else
        int32_t sum[3] = {1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)};
        for (int j = 0; j < f->count[place]; j++, pixel += 4)
            for (int c = 0; c < 3; c++) sum[c] += pixel[c] * weight[j];
        for (int c = 0; c < 3; c++) out[c] = clip(sum[c] >> BITS);
#endif
    }
}

/* Crop (x, y, w, h) in pixels of the whole image → out [out_h, out_w, 3]; mirrored with `flip`. */
int region_decode(const uint8_t *data, unsigned long bytes, int x, int y, int w, int h, int out_h, int out_w,
                  int flip, int bicubic, uint8_t *out) {
    struct jpeg_decompress_struct jpeg;
    Failure failure;
    uint8_t *volatile pixels = NULL;
    Filter across = {0}, down = {0};
    volatile int result = BROKEN;
    jpeg.err = failures_to(&failure);
    if (setjmp(failure.back)) goto done;
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, bytes);
    jpeg_read_header(&jpeg, TRUE);
    if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK) { result = OTHER_COLORS; goto done; }
    jpeg.out_color_space = JCS_EXT_RGBX;
    int shrink = 1; /* as PIL with reducing_gap=2 */
    while (shrink < 8 && w / (shrink * 2) >= 2 * out_w && h / (shrink * 2) >= 2 * out_h) shrink *= 2;
    jpeg.scale_num = 8 / shrink;
    jpeg.scale_denom = 8;
    jpeg_start_decompress(&jpeg);
    double sx = (double)jpeg.output_width / jpeg.image_width, sy = (double)jpeg.output_height / jpeg.image_height;
    int top = (int)fmax(floor(y * sy) - 1, 0), bottom = (int)fmin(ceil((y + h) * sy) + 1, jpeg.output_height);
    JDIMENSION left = (JDIMENSION)fmax(floor(x * sx) - 1, 0);
    JDIMENSION wide = (JDIMENSION)fmin(ceil((x + w) * sx) + 1, jpeg.output_width) - left;
    if (wide < jpeg.output_width) jpeg_crop_scanline(&jpeg, &left, &wide);
    size_t stride = (size_t)wide * 4;
    int rows = bottom - top;
    pixels = malloc(stride * (rows + 1) + 64);
    if (!pixels || make_filter(&across, wide, x * sx - left, w * sx, out_w, bicubic, flip) ||
        make_filter(&down, rows, y * sy - top, h * sy, out_h, bicubic, 0)) { result = NO_MEMORY; goto done; }
    if (top > 0) jpeg_skip_scanlines(&jpeg, top);
    for (int row = 0; row < rows;) {
        JSAMPROW into = pixels + (size_t)row * stride;
        row += jpeg_read_scanlines(&jpeg, &into, 1);
    }
    uint8_t *line = pixels + (size_t)rows * stride;
    for (int row = 0; row < out_h; row++) {
        blend_rows(pixels + (size_t)down.first[row] * stride, stride, down.weight + (size_t)row * down.taps,
                   down.count[row], line);
        blend_columns(line, &across, out_w, out + (size_t)row * out_w * 3);
    }
    result = OK;
done:
    jpeg_destroy_decompress(&jpeg);
    free(pixels);
    drop(&across);
    drop(&down);
    return result;
}
