/* Errors of pictures of 8 bits, summed over the atoms of their tiles: one pass over memory.

   Shape letters: n tiles, S pixels a side of a tile, A atoms of a tile, each `atom` pixels a side. */

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
void autogaze_errors(const uint8_t *frames, const uint8_t *pictures, const uint8_t *bare, int64_t tiles, int64_t side, int64_t atom, double *absolute, double *squared) {
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
