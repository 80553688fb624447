/* The gaze decoder on a CPU: one call feeds the new tokens of several clips through every block and both heads.

   Written with the vector extensions of GCC, for AVX-512 or, where that is not, AVX2 with FMA. Every number is summed
   in one order, which depends neither on threads nor on what else is fed: a clip's results are the same bits in any
   batch.

   Shape letters: N new tokens of all rows in use, row after row, A rows in use, C channels, H query heads, G key/value
   heads, R = H / G, D channels of a head, E = D / 2, F channels inside the feed-forward layer, O outputs of the heads,
   L places of the cache. Matrices are packed as panels: (outputs / PANEL, inputs, PANEL), padded with zeros. */

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, PANEL_VECTORS = 2, TILE = 12 };
#else
enum { LANES = 8, PANEL_VECTORS = 2, TILE = 6 };
#endif
enum {
    PANEL = LANES * PANEL_VECTORS, /* columns of a product that are computed at once, for TILE rows: in registers */
    KEYS = 128,                    /* keys whose weights are kept at once */
    TILES = 4,                     /* tiles of queries that read keys while they are in the first cache */
    MOST_D = 128,
    HEADROOM = 40 /* a score may pass the one that weighs 1 by so many powers of two, before all are weighed anew */
};

typedef float vector __attribute__((vector_size(LANES * 4)));
typedef float vector_anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(LANES * 4)));

#define INLINE static inline __attribute__((always_inline))

/* What is fed to. Mirrored by autogaze.native.library._Shape. */
struct shape {
    int64_t layers, channels, heads, kv_heads, head_dim, inner, outputs, capacity;
    double eps;
};

/* One block's packed matrices and its cache. */
struct layer {
    const float *q, *kv, *o, *gate_up, *down; /* gate and up in turn, half a panel of each */
    float *keys, *values;                     /* (rows of the cache, G, L, D) */
};

/* The new tokens of one row. */
struct span {
    int64_t row, first, new, seen; /* row of the cache; first of its tokens among N; how many; in the cache then */
};

INLINE vector load(const float *from) { return *(const vector_anywhere *)from; }
INLINE void store(float *to, vector value) { *(vector_anywhere *)to = value; }
INLINE vector all(float value) { return value - (vector){0}; } /* + would be an addition: it makes 0 of -0 */
INLINE vector choose(integers where, vector yes, vector no) {
    return (vector)((where & (integers)yes) | (~where & (integers)no));
}
/* Of a number and NaN the larger and the smaller are the second argument. Products are added in one rounding: left to
   itself a compiler rounds once or twice as it likes, in each of a loop's versions. */
#if defined(__AVX512F__)
INLINE vector larger(vector a, vector b) { return _mm512_max_ps(a, b); }
INLINE vector smaller(vector a, vector b) { return _mm512_min_ps(a, b); }
INLINE vector add_product(vector sum, vector a, float b) { return _mm512_fmadd_ps(a, all(b), sum); }
INLINE int any_above(vector x, float level) { return _mm512_cmp_ps_mask(x, all(level), _CMP_GT_OQ) != 0; }
#else
INLINE vector larger(vector a, vector b) { return _mm256_max_ps(a, b); }
INLINE vector smaller(vector a, vector b) { return _mm256_min_ps(a, b); }
INLINE vector add_product(vector sum, vector a, float b) { return _mm256_fmadd_ps(a, all(b), sum); }
INLINE int any_above(vector x, float level) { return _mm256_movemask_ps(_mm256_cmp_ps(x, all(level), _CMP_GT_OQ)) != 0; }
#endif

/* 2 to the power of x, which is at most 127, to one or two units in the last place; of x below -126 what it is of
   -126, of NaN NaN. */
INLINE vector power_of_two(vector x) {
    const float round = 0x1.8p23f + 127; /* added, it leaves the nearest integer, as an exponent, in the last bits */
    x = larger(all(-126.0f), x);
    const vector shifted = x + round, f = x - (shifted - round);
    vector p = all(1.5353374e-4f); /* least largest relative error, 2e-9 before rounding */
    p = p * f + 1.3398879e-3f;
    p = p * f + 9.6184370e-3f;
    p = p * f + 5.5503324e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.0f;
    return p * (vector)((integers)shifted << 23);
}

INLINE float sum_of(vector x) {
    float sum = 0;
    for (int lane = 0; lane < LANES / 2; lane++) sum += x[lane] + x[lane + LANES / 2];
    return sum;
}

INLINE float largest_of(vector x) {
    float largest = x[0];
    for (int lane = 1; lane < LANES; lane++) largest = x[lane] > largest ? x[lane] : largest;
    return largest;
}

/* Products of matrices, for one tile of rows and one panel of columns */

/* to (rows, PANEL) = left (inputs, TILE), transposed, times right (inputs, PANEL). */
INLINE void multiply(const float *left, const float *right, int64_t inputs, float *to, int64_t to_step,
                     const int rows) {
    vector sum[TILE][PANEL_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < PANEL_VECTORS; v++) sum[r][v] = all(0.0f);
    for (int64_t c = 0; c < inputs; c++) {
        vector column[PANEL_VECTORS];
        for (int v = 0; v < PANEL_VECTORS; v++) column[v] = load(right + c * PANEL + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < PANEL_VECTORS; v++) sum[r][v] = add_product(sum[r][v], column[v], left[c * TILE + r]);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < PANEL_VECTORS; v++) store(to + r * to_step + v * LANES, sum[r][v]);
}

/* to (rows, PANEL) = to, each row times its number, + left (rows, KEYS) times right (inputs, D), PANEL columns of it. */
INLINE void gather(const float *left, const float *right, int64_t inputs, int64_t D, const float *shrink, float *to,
                   const int rows) {
    vector sum[TILE][PANEL_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < PANEL_VECTORS; v++) sum[r][v] = load(to + r * D + v * LANES) * shrink[r];
    for (int64_t c = 0; c < inputs; c++) {
        vector column[PANEL_VECTORS];
        for (int v = 0; v < PANEL_VECTORS; v++) column[v] = load(right + c * D + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < PANEL_VECTORS; v++) sum[r][v] = add_product(sum[r][v], column[v], left[r * KEYS + c]);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < PANEL_VECTORS; v++) store(to + r * D + v * LANES, sum[r][v]);
}

/* Each number of rows that is worth it has code of its own; others do a little more than asked. */
#define FOR_ROWS(rows, what)                                                                                          \
    if (rows == 1) { enum { ROWS = 1 }; what; }                                                                       \
    else if (rows == 2) { enum { ROWS = 2 }; what; }                                                                  \
    else if (rows <= 4) { enum { ROWS = 4 }; what; }                                                                  \
    else if (rows <= 6) { enum { ROWS = 6 }; what; }                                                                  \
    else if (rows <= 8) { enum { ROWS = TILE < 8 ? TILE : 8 }; what; }                                                \
    else if (rows <= 10) { enum { ROWS = TILE < 10 ? TILE : 10 }; what; }                                             \
    else { enum { ROWS = TILE }; what; }

static void multiply_rows(const float *left, const float *right, int64_t inputs, float *to, int64_t step, int rows) {
    FOR_ROWS(rows, multiply(left, right, inputs, to, step, ROWS))
}

static void gather_rows(const float *left, const float *right, int64_t inputs, int64_t D, const float *shrink,
                        float *to, int rows) {
    FOR_ROWS(rows, gather(left, right, inputs, D, shrink, to, ROWS))
}

/* Lay `rows` tokens of `inputs` channels side by side; with `eps` ≥ 0 divided by their root mean square. */
static void pack_tile(const float *x, int64_t inputs, int rows, float eps, float *tile) {
    for (int r = 0; r < rows; r++, x += inputs) {
        float scale = 1.0f;
        if (eps >= 0) {
            vector squares = all(0.0f);
            int64_t c = 0;
            for (; c + LANES <= inputs; c += LANES) squares += load(x + c) * load(x + c);
            float sum = sum_of(squares);
            for (; c < inputs; c++) sum += x[c] * x[c];
            scale = 1.0f / sqrtf(sum / inputs + eps);
        }
        for (int64_t c = 0; c < inputs; c++) tile[c * TILE + r] = x[c] * scale;
    }
}

enum finish { WRITE, ADD, GATE };

/* What becomes of a panel's products: they are written to, or added to, (tokens, width), or gate each other. */
INLINE void finish_panel(enum finish how, const float *product, int64_t panel, int rows, float *to, int64_t width) {
    const int step = how == GATE ? PANEL / 2 : PANEL;
    const int64_t left = width - panel * step;
    const int count = left < step ? (int)left : step;
    for (int r = 0; r < rows; r++, product += PANEL, to += width) {
        float *into = to + panel * step;
        if (how == GATE) {
            float gated[PANEL / 2];
            for (int v = 0; v < PANEL_VECTORS / 2; v++) {
                vector gate = load(product + v * LANES), up = load(product + PANEL / 2 + v * LANES);
                vector below = power_of_two(smaller(all(126.0f), gate * -1.44269504f)) + 1.0f;
                store(gated + v * LANES, gate / below * up);
            }
            memcpy(into, gated, sizeof(float) * count);
        } else if (how == ADD)
            for (int i = 0; i < count; i++) into[i] += product[i];
        else
            memcpy(into, product, sizeof(float) * count);
    }
}

/* One matrix for `tokens` tokens, by all threads of the team, without a barrier at its end. */
INLINE void apply(enum finish how, const float *x, int64_t inputs, float eps, const float *matrix, int64_t panels,
                  float *to, int64_t width, int64_t tokens, int64_t threads, float *tile) {
    const int64_t tiles = (tokens + TILE - 1) / TILE;
    int64_t parts = tiles >= 6 * threads ? 1 : (2 * threads + tiles - 1) / tiles; /* of the panels */
    if (parts > panels) parts = panels;
#pragma omp for schedule(dynamic) nowait
    for (int64_t item = 0; item < tiles * parts; item++) {
        const int64_t t = item / parts, part = item % parts;
        const int64_t first = t * tokens / tiles, end = (t + 1) * tokens / tiles;
        const int rows = (int)(end - first);
        float product[TILE * PANEL] __attribute__((aligned(64)));
        pack_tile(x + first * inputs, inputs, rows, eps, tile);
        for (int64_t p = part * panels / parts; p < (part + 1) * panels / parts; p++) {
            multiply_rows(tile, matrix + p * inputs * PANEL, inputs, product, PANEL, rows);
            finish_panel(how, product, p, rows, to + first * width, width);
        }
    }
}

/* Attention. Keys lie in panels, (L / PANEL, D, PANEL), values as they are, (L, D): both are then read in order. */

struct tile {
    float q[MOST_D * TILE], sum[TILE * MOST_D];
    float top[TILE], shrink[TILE]; /* the largest score of each query so far; what earlier sums are times */
    vector total[TILE];
    int64_t last[TILE]; /* the last key that each query sees */
    int rows;
} __attribute__((aligned(64)));

/* Weights of `count` keys from `first` on, out of their scores (TILE, KEYS). */
INLINE void weigh(struct tile *t, float *scores, int64_t first, int count) {
    const int vectors = (count + LANES - 1) / LANES;
    integers lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    for (int r = 0; r < t->rows; r++) {
        float *score = scores + r * KEYS;
        const int64_t seen = t->last[r] + 1 - first;
        if (seen < vectors * LANES)
            for (int v = 0; v < vectors; v++)
                store(score + v * LANES,
                      choose(lane + v * LANES < (int32_t)seen, load(score + v * LANES), all(-INFINITY)));
        vector most = load(score);
        for (int v = 1; v < vectors; v++) most = larger(most, load(score + v * LANES));
        const float before = t->top[r];
        t->shrink[r] = 1.0f;
        if (any_above(most, before + HEADROOM)) {
            t->top[r] = largest_of(most);
            const vector shrink = power_of_two(all(before - t->top[r]));
            t->shrink[r] = shrink[0];
            t->total[r] *= shrink;
        }
        const float top = t->top[r];
        vector total = t->total[r];
        for (int v = 0; v < vectors; v++) {
            const vector weight = power_of_two(load(score + v * LANES) - top);
            total += weight;
            store(score + v * LANES, weight);
        }
        t->total[r] = total;
    }
}

/* Attention of tiles of queries of one head. */
static void attend_tiles(struct tile *tiles, int count_of_tiles, const float *keys, const float *values, int64_t D) {
    float scores[TILE * KEYS] __attribute__((aligned(64)));
    const struct tile *end = tiles + count_of_tiles;
    const int64_t seen = end[-1].last[end[-1].rows - 1] + 1;
    for (int64_t first = 0; first < seen; first += KEYS)
        for (struct tile *t = tiles; t < end; t++) {
            const int64_t left = t->last[t->rows - 1] + 1 - first;
            const int count = left < KEYS ? (int)left : KEYS;
            if (count <= 0) continue;
            for (int k = 0; k < count; k += PANEL)
                multiply_rows(t->q, keys + (first + k) * D, D, scores + k, KEYS, t->rows);
            weigh(t, scores, first, count);
            for (int64_t d = 0; d < D; d += PANEL)
                gather_rows(scores, values + first * D + d, count, D, t->shrink, t->sum + d, t->rows);
        }
}

/* The queries `first` … `end` - 1 of a head, token by token and in it head by head of those that share keys. */
static void open_tile(struct tile *t, const float *q, int64_t step, int64_t first, int64_t end, int64_t R,
                      int64_t past, int64_t D) {
    t->rows = (int)(end - first);
    for (int r = 0; r < TILE; r++) {
        const int64_t query = first + (r < t->rows ? r : 0); /* rows beyond are computed, and read by nobody */
        const float *from = q + query / R * step + query % R * D;
        for (int64_t d = 0; d < D; d++) t->q[d * TILE + r] = from[d];
        for (int64_t d = 0; d < D; d++) t->sum[r * D + d] = 0;
        t->last[r] = past + query / R;
        t->top[r] = -INFINITY, t->shrink[r] = 1.0f, t->total[r] = all(0.0f);
    }
}

/* Attention of every new token, or of each row's last, by all threads of the team, without a barrier at its end. */
static void attend(const struct shape *s, const struct layer *layer, const struct span *spans, int64_t rows, int last,
                   const float *q, float *to) {
    const int64_t H = s->heads, G = s->kv_heads, D = s->head_dim, R = H / G, step = H * D;
    int64_t most = 1;
    for (int64_t a = 0; a < rows; a++)
        if (!last && spans[a].new > most) most = spans[a].new;
    const int64_t blocks = (most * R + TILE * TILES - 1) / (TILE * TILES);
#pragma omp for schedule(dynamic) nowait
    for (int64_t item = 0; item < rows * G * blocks; item++) {
        const struct span *span = spans + item / (G * blocks);
        const int64_t g = item / blocks % G, block = item % blocks, cache = (span->row * G + g) * s->capacity * D;
        const int64_t queries = (last ? 1 : span->new) * R, past = span->seen - (last ? 1 : span->new);
        const int64_t all_tiles = (queries + TILE - 1) / TILE, first = block * TILES;
        const int64_t at = (last ? span - spans : span->first) * step + g * R * D;
        struct tile tiles[TILES];
        int count = 0;
        for (int64_t t = first; t < all_tiles && t < first + TILES; t++)
            open_tile(&tiles[count++], q + at, step, t * queries / all_tiles, (t + 1) * queries / all_tiles, R, past,
                      D);
        if (!count) continue;
        attend_tiles(tiles, count, layer->keys + cache, layer->values + cache, D);
        int64_t query = first * queries / all_tiles;
        for (int t = 0; t < count; t++)
            for (int r = 0; r < tiles[t].rows; r++, query++) {
                float *into = to + at + query / R * step + query % R * D;
                const float total = sum_of(tiles[t].total[r]);
                for (int64_t d = 0; d < D; d++) into[d] = tiles[t].sum[r * D + d] / total;
            }
    }
}

/* Rotate neighbouring channels of heads by a token's position. */
INLINE void rotate(float *x, int64_t heads, int64_t D, const float *turn) {
    for (float *end = x + heads * D; x < end; x += D)
        for (int64_t d = 0; d < D; d += 2) {
            const float a = x[d], b = x[d + 1];
            x[d] = a * turn[d] - b * turn[d + 1];
            x[d + 1] = a * turn[d + 1] + b * turn[d];
        }
}

/* Write a token's keys and values behind what its row holds, at place `at`. */
INLINE void remember(const struct shape *s, const struct layer *layer, const float *kv, int64_t row, int64_t at) {
    const int64_t D = s->head_dim, G = s->kv_heads;
    for (int64_t g = 0; g < G; g++, kv += D) {
        const int64_t cache = (row * G + g) * s->capacity * D;
        float *key = layer->keys + cache + at / PANEL * PANEL * D + at % PANEL;
        for (int64_t d = 0; d < D; d++) key[d * PANEL] = kv[d];
        memcpy(layer->values + cache + at * D, kv + G * D, sizeof(float) * D);
    }
}

static int64_t panels_of(int64_t outputs) { return (outputs + PANEL - 1) / PANEL; }

int64_t autogaze_panel(void) { return PANEL; }

/* Whether heads of D channels can be computed. */
int64_t autogaze_takes(int64_t D) { return D % PANEL == 0 && D <= MOST_D; }

/* Floats that a thread lays a tile of tokens into; a little apart from the next thread's, so that they share no line. */
static int64_t tile_size(const struct shape *s) {
    const int64_t HD = s->heads * s->head_dim, widest = HD > s->inner ? HD : s->inner;
    return (widest > s->channels ? widest : s->channels) * TILE + 16;
}

/* Floats of working memory that a feed takes: laid out in autogaze_feed. */
int64_t autogaze_scratch(const struct shape *s, int64_t tokens, int64_t rows, int64_t threads) {
    const int64_t HD = s->heads * s->head_dim, KV = 2 * s->kv_heads * s->head_dim;
    return tokens * (HD + KV + HD + s->inner) + rows * s->channels + threads * tile_size(s);
}

/* Feed `tokens` tokens x (N, C), which are overwritten, at the rotations turn (N, E, 2); what the heads, packed as
   `heads`, say at each row's last token goes to said (A, O). */
void autogaze_feed(const struct shape *s, const struct layer *layers, const float *heads, const struct span *spans,
                   int64_t rows, int64_t tokens, float *x, const float *turn, float *said, float *scratch,
                   int64_t threads) {
    const int64_t C = s->channels, D = s->head_dim, HD = s->heads * D, KV = 2 * s->kv_heads * D, F = s->inner;
    float *q = scratch, *kv = q + tokens * HD, *attended = kv + tokens * KV, *inner = attended + tokens * HD;
    float *last_x = inner + tokens * F, *tiles = last_x + rows * C;
    const float eps = (float)s->eps;
#pragma omp parallel num_threads(threads)
    {
        float *tile = tiles + omp_get_thread_num() * tile_size(s);
        float *stream = x;
        int64_t count = tokens; /* tokens in the stream: all, and in the end those of which something is asked */
        for (int64_t l = 0; l < s->layers; l++) {
            const struct layer *layer = layers + l;
            const int last = l == s->layers - 1;
            apply(WRITE, x, C, eps, layer->kv, panels_of(KV), kv, KV, tokens, threads, tile);
            if (last) {
                /* Nobody reads the last block's output but the heads, and they only at each row's last token. */
                stream = last_x, count = rows;
#pragma omp for
                for (int64_t a = 0; a < rows; a++)
                    memcpy(stream + a * C, x + (spans[a].first + spans[a].new - 1) * C, sizeof(float) * C);
            }
            apply(WRITE, stream, C, eps, layer->q, panels_of(HD), q, HD, count, threads, tile);
#pragma omp barrier
#pragma omp for
            for (int64_t part = 0; part < rows * threads; part++) {
                const struct span *span = spans + part / threads;
                const int64_t first = part % threads * span->new / threads;
                const int64_t end = (part % threads + 1) * span->new / threads;
                for (int64_t i = first; i < end; i++) {
                    const int64_t n = span->first + i;
                    rotate(kv + n * KV, s->kv_heads, D, turn + n * D);
                    remember(s, layer, kv + n * KV, span->row, span->seen - span->new + i);
                    if (!last)
                        rotate(q + n * HD, s->heads, D, turn + n * D);
                    else if (i == span->new - 1)
                        rotate(q + (span - spans) * HD, s->heads, D, turn + n * D);
                }
            }
            attend(s, layer, spans, rows, last, q, attended);
#pragma omp barrier
            apply(ADD, attended, HD, -1.0f, layer->o, panels_of(C), stream, C, count, threads, tile);
#pragma omp barrier
            apply(GATE, stream, C, eps, layer->gate_up, panels_of(2 * F), inner, F, count, threads, tile);
#pragma omp barrier
            apply(ADD, inner, F, -1.0f, layer->down, panels_of(C), stream, C, count, threads, tile);
#pragma omp barrier
        }
        apply(WRITE, last_x, C, eps, heads, panels_of(s->outputs), said, s->outputs, rows, threads, tile);
    }
}
