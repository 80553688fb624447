/* Pictures of 8 bits: their errors summed over the atoms of their tiles, and a greedy search among patches.

   Shape letters: n tiles, S pixels a side of a tile, A atoms of a tile, each `atom` pixels a side, K scales, P patches
   of a tile. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Add the errors of a row of pixels, in half levels, to sums by column. A bare value of the picture lies half a level
   above its 8 bits, where no value of a frame does. */
INLINE void add_row(const uint8_t *frame, const uint8_t *picture, const uint8_t *bare, int64_t values,
                    uint32_t *absolute, uint32_t *squared) {
    for (int64_t i = 0; i < values; i++) {
        const int32_t difference = 2 * (frame[i] - picture[i]) - (bare ? bare[i] : 0);
        const uint32_t error = (uint32_t)abs(difference);
        absolute[i] += error;
        if (squared) squared[i] += error * error;
    }
}

INLINE void sum_atoms(const uint32_t *columns, int64_t side, int64_t atom, double *sums) {
    for (int64_t a = 0; a < side / atom; a++) {
        uint64_t sum = 0;
        for (int64_t i = 0; i < atom * 3; i++) sum += columns[a * atom * 3 + i];
        sums[a] = (double)sum;
    }
}

/* Of each of n frames (S, S, 3) against pictures, (n, A) sums of errors in half levels and, where `squared` is given,
   of their squares. `bare` (n, S, S, 3) is given where the pictures have bare values. */
void autogaze_errors(const uint8_t *frames, const uint8_t *pictures, const uint8_t *bare, int64_t tiles,
                     int64_t side, int64_t atom, double *absolute, double *squared) {
    const int64_t bands = side / atom, values = side * 3, of_tile = side * values;
    for (int64_t item = 0; item < tiles * bands; item++) {
        const int64_t tile = item / bands, first = tile * of_tile + item % bands * atom * values;
        uint32_t columns[values], squares[values];
        memset(columns, 0, sizeof columns);
        memset(squares, 0, sizeof squares);
        for (int64_t at = first; at < first + atom * values; at += values) {
            if (squared)
                add_row(frames + at, pictures + at, bare ? bare + at : 0, values, columns, squares);
            else if (bare)
                add_row(frames + at, pictures + at, bare + at, values, columns, 0);
            else
                add_row(frames + at, pictures + at, 0, values, columns, 0);
        }
        sum_atoms(columns, side, atom, absolute + item * bands);
        if (squared) sum_atoms(squares, side, atom, squared + item * bands);
    }
}

/* One tile of a search. Mirrored by autogaze.native.pixels.Tile. All numbers are whole, so no order of sums matters. */
struct tile {
    int64_t scales, side, patches; /* K, atoms along one side, P */
    const int64_t *patch_of_atom;  /* (K, A); P where a scale has no patch */
    double *removed;               /* (K, A) error that each scale would take off an atom */
    const double *shown;           /* (K, A) errors of the scales */
    int8_t *finest;                /* (A) finest scale pasted */
    double *gains;                 /* (P + 1) what each patch would gain */
    double *squared;               /* (A), or none */
    const double *shown_squared;   /* (K, A), or none */
    double best_gain, squared_change; /* written */
};

/* Paste a patch, the square of `side` × `side` atoms from `first` on at a scale. The patch that would gain most then,
   the lowest among equals. */
int64_t autogaze_paste(struct tile *t, int64_t scale, int64_t first, int64_t side) {
    const int64_t atoms = t->side * t->side;
    t->squared_change = 0;
    for (int64_t row = 0; row < side; row++)
        for (int64_t atom = first + row * t->side; atom < first + row * t->side + side; atom++) {
            if (t->finest[atom] > scale) continue; /* finer patches win */
            for (int64_t k = 0, at = atom; k < t->scales; k++, at += atoms) {
                const double after = k > scale ? t->shown[scale * atoms + atom] - t->shown[at] : 0;
                t->gains[t->patch_of_atom[at]] -= t->removed[at] - after;
                t->removed[at] = after;
            }
            if (t->squared) {
                t->squared_change += t->shown_squared[scale * atoms + atom] - t->squared[atom];
                t->squared[atom] = t->shown_squared[scale * atoms + atom];
            }
            t->finest[atom] = (int8_t)scale;
        }
    t->gains[t->patches] = 0;
    int64_t best = 0;
    for (int64_t patch = 1; patch < t->patches; patch++)
        if (t->gains[patch] > t->gains[best]) best = patch;
    t->best_gain = t->gains[best];
    return best;
}
