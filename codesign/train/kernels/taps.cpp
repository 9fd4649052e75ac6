// Convolutions of stride 1 whose weights are mostly absent, on the CPU: what is stored of the weights are the taps.
//
// Samples lie side by side in a vector, so that one tap is a product of a number and vectors. Signals are packed as
// (blocks of LANES samples, channels, height, width, LANES), with zeros around. An output is cut into tiles of TILE
// places; the sums of a tile stay in registers while the taps of one target and of some sources are added up, so many
// sources as fit the first-level cache.
//
// Each sum of the signals is added in the order of sources, rows and columns, from 0 on; each gradient of a tap in the
// order of blocks and tiles. So the bits do not depend on the threads.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "threads.hpp"
#include "vectors.hpp"

namespace {

constexpr int TILE = VECTOR_BYTES == 64 ? 16 : 8;  // places, whose sums take half of the registers
constexpr int64_t NEAR_CACHE = 24 * 1024;  // bytes of packed sources that a tile goes over at once
constexpr int64_t COLUMNS = 16;            // channels that are packed together

template <typename T> constexpr int64_t LANES = VECTOR_BYTES / static_cast<int64_t>(sizeof(T));

struct Sizes {
    int64_t samples, sources, targets;
    int64_t height, width;                // of the output
    int64_t packed_height, packed_width;  // of the signal, zeros included
    int64_t group, groups;                // sources that are added up at once
};

// (samples, height, width, channels) -> packed, `top` rows and columns of zeros before, the rest of them after.
template <typename T>
void pack(int64_t samples, int64_t height, int64_t width, int64_t channels, const T *x, int64_t top, int64_t packed_height,
          int64_t packed_width, T *out, int64_t threads) {
    constexpr int64_t L = LANES<T>;
    const int64_t blocks = (samples + L - 1) / L, plane = packed_height * packed_width * L;
    const int64_t between = height * width * channels;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t b = 0; b < blocks; ++b) {
        for (int64_t y = 0; y < packed_height; ++y) {
            T *row = out + b * channels * plane + y * packed_width * L;
            const bool outside = y < top || y >= top + height;
            for (int64_t c = 0; c < channels; ++c) {
                const int64_t before = outside ? packed_width : top;
                std::memset(row + c * plane, 0, sizeof(T) * before * L);
                if (!outside) {
                    std::memset(row + c * plane + (top + width) * L, 0, sizeof(T) * (packed_width - top - width) * L);
                }
            }
            if (outside) continue;
            const int64_t present = std::min(L, samples - b * L);
            for (int64_t v = 0; v < width; ++v) {
                const T *from = x + ((b * L * height + y - top) * width + v) * channels;
                T *to = row + (top + v) * L;
                for (int64_t c = 0; c < channels; c += COLUMNS) {
                    const int64_t n = std::min(COLUMNS, channels - c);
                    if (present == L && n == COLUMNS) {
                        for (int64_t i = 0; i < COLUMNS; ++i) {
                            for (int64_t s = 0; s < L; ++s) to[(c + i) * plane + s] = from[s * between + c + i];
                        }
                        continue;
                    }
                    for (int64_t i = 0; i < n; ++i) {
                        for (int64_t s = 0; s < L; ++s) {
                            to[(c + i) * plane + s] = s < present ? from[s * between + c + i] : T(0);
                        }
                    }
                }
            }
        }
    }
}

// sums: (targets, TILE, LANES) of the tile at (y, x) -> out (samples, height, width, targets).
template <int ROWS, typename T>
void unpack(const Sizes &z, int64_t block, int64_t y, int64_t x, const T *sums, T *out) {
    constexpr int64_t L = LANES<T>, BREADTH = TILE / ROWS;
    const int64_t present = std::min(L, z.samples - block * L), between = z.height * z.width * z.targets;
    for (int64_t p = 0; p < TILE; ++p) {
        const int64_t row = y + p / BREADTH, column = x + p % BREADTH;
        if (row >= z.height || column >= z.width) continue;
        T *to = out + ((block * L * z.height + row) * z.width + column) * z.targets;
        const T *from = sums + p * L;
        for (int64_t k = 0; k < z.targets; k += COLUMNS) {
            const int64_t n = std::min(COLUMNS, z.targets - k);
            if (present == L && n == COLUMNS) {
                for (int64_t s = 0; s < L; ++s) {
                    for (int64_t i = 0; i < COLUMNS; ++i) to[s * between + k + i] = from[(k + i) * TILE * L + s];
                }
                continue;
            }
            for (int64_t s = 0; s < present; ++s) {
                for (int64_t i = 0; i < n; ++i) to[s * between + k + i] = from[(k + i) * TILE * L + s];
            }
        }
    }
}

// offsets (groups x targets + 1) and, for each tap, the place of its source relative to a tile's first (`at`).
template <int ROWS, typename T>
void convolve(const Sizes &z, const int32_t *offsets, const int32_t *at, const T *weights, const T *packed, T *out,
              int64_t threads) {
    using V = typename Vector<T>::type;
    constexpr int64_t L = LANES<T>, BREADTH = TILE / ROWS;
    const int64_t blocks = (z.samples + L - 1) / L, plane = z.packed_height * z.packed_width * L;
    const int64_t row = z.packed_width * L;
    const SameRounding rounding;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const unsigned before = rounding.enter();
        std::vector<V> sums(z.targets * TILE);
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            for (int64_t y = 0; y < z.height; y += ROWS) {
                for (int64_t x = 0; x < z.width; x += BREADTH) {
                    const T *corner = packed + b * z.sources * plane + y * row + x * L;
                    for (int64_t g = 0; g < z.groups; ++g, corner += z.group * plane) {
                        for (int64_t k = 0; k < z.targets; ++k) {
                            V *mine = sums.data() + k * TILE;
                            V held[TILE];
                            for (int p = 0; p < TILE; ++p) held[p] = g ? mine[p] : V{};
                            for (int32_t e = offsets[g * z.targets + k]; e < offsets[g * z.targets + k + 1]; ++e) {
                                const T *from = corner + at[e];
                                const V weight = V{} + weights[e];
#pragma GCC unroll 16
                                for (int p = 0; p < TILE; ++p) {
                                    held[p] += weight * *reinterpret_cast<const V *>(from + p / BREADTH * row + p % BREADTH * L);
                                }
                            }
                            for (int p = 0; p < TILE; ++p) mine[p] = held[p];
                        }
                    }
                    unpack<ROWS, T>(z, b, y, x, reinterpret_cast<const T *>(sums.data()), out);
                }
            }
        }
        SameRounding::leave(before);
    }
}

// Of each tap the sum over samples and places of signal times upstream gradient. The gradient is packed with
// `upstream_top` zeros before it, and with rows of upstream_width.
template <int ROWS, typename T>
void gradients(const Sizes &z, int64_t upstream_top, int64_t upstream_height, int64_t upstream_width,
               const int32_t *offsets, const int32_t *at, const T *packed, const T *upstream, T *out, int64_t threads) {
    using V = typename Vector<T>::type;
    constexpr int64_t L = LANES<T>, BREADTH = TILE / ROWS;
    const int64_t blocks = (z.samples + L - 1) / L, plane = z.packed_height * z.packed_width * L;
    const int64_t row = z.packed_width * L, upstream_row = upstream_width * L;
    const int64_t upstream_plane = upstream_height * upstream_row;
    std::vector<V> sums(offsets[z.groups * z.targets]);
    const SameRounding rounding;
    // A target's taps are one thread's, whoever that is.
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t part = 0; part < threads; ++part) {
        const unsigned before = rounding.enter();
        const int64_t first = z.targets * part / threads, last = z.targets * (part + 1) / threads;
        for (int64_t b = 0; b < blocks; ++b) {
            for (int64_t y = 0; y < z.height; y += ROWS) {
                for (int64_t x = 0; x < z.width; x += BREADTH) {
                    const T *corner = packed + b * z.sources * plane + y * row + x * L;
                    const T *theirs = upstream + b * z.targets * upstream_plane + (y + upstream_top) * upstream_row +
                                      (x + upstream_top) * L;
                    for (int64_t g = 0; g < z.groups; ++g, corner += z.group * plane) {
                        for (int64_t k = first; k < last; ++k) {
                            const int32_t begin = offsets[g * z.targets + k], end = offsets[g * z.targets + k + 1];
                            if (begin == end) continue;
                            V held[TILE];
#pragma GCC unroll 16
                            for (int p = 0; p < TILE; ++p) {
                                held[p] = *reinterpret_cast<const V *>(theirs + k * upstream_plane +
                                                                       p / BREADTH * upstream_row + p % BREADTH * L);
                            }
                            for (int32_t e = begin; e < end; ++e) {
                                const T *from = corner + at[e];
                                V partial[4] = {};
#pragma GCC unroll 16
                                for (int p = 0; p < TILE; ++p) {
                                    partial[p % 4] +=
                                        held[p] * *reinterpret_cast<const V *>(from + p / BREADTH * row + p % BREADTH * L);
                                }
                                sums[e] += (partial[0] + partial[1]) + (partial[2] + partial[3]);
                            }
                        }
                    }
                }
            }
        }
        for (int64_t g = 0; g < z.groups; ++g) {
            for (int32_t e = offsets[g * z.targets + first]; e < offsets[g * z.targets + last]; ++e) {
                T total = 0;
                for (int64_t s = 0; s < L; ++s) total += sums[e][s];
                out[e] = total;
            }
        }
        SameRounding::leave(before);
    }
}

// Rows of a tile for outputs of this width: as wide as it has places, or narrower and higher.
int64_t rows_of(int64_t width) { return 4 * width >= 3 * TILE ? 1 : 8 * width >= 3 * TILE ? 2 : 4; }

}  // namespace

#define EXPORT(SUFFIX, T)                                                                                              \
    int64_t taps_lanes_##SUFFIX() { return LANES<T>; }                                                                 \
    int64_t taps_group_##SUFFIX(int64_t rows, int64_t kernel) {                                                        \
        const int64_t seen = (rows + kernel - 1) * (TILE / rows + kernel - 1) * VECTOR_BYTES;                          \
        return std::max<int64_t>(1, NEAR_CACHE / seen);                                                                \
    }                                                                                                                  \
    void taps_pack_##SUFFIX(int64_t samples, int64_t height, int64_t width, int64_t channels, const T *x, int64_t top, \
                            int64_t packed_height, int64_t packed_width, T *out, int64_t threads) {                    \
        pack<T>(samples, height, width, channels, x, top, packed_height, packed_width, out, threads);                  \
    }                                                                                                                  \
    void taps_convolve_##SUFFIX(const Sizes *z, int64_t rows, const int32_t *offsets, const int32_t *at,               \
                                const T *weights, const T *packed, T *out, int64_t threads) {                          \
        (rows == 1 ? convolve<1, T> : rows == 2 ? convolve<2, T> : convolve<4, T>)(*z, offsets, at, weights, packed,   \
                                                                                   out, threads);                      \
    }                                                                                                                  \
    void taps_gradients_##SUFFIX(const Sizes *z, int64_t rows, int64_t upstream_top, int64_t upstream_height,          \
                                 int64_t upstream_width, const int32_t *offsets, const int32_t *at, const T *packed,   \
                                 const T *upstream, T *out, int64_t threads) {                                         \
        (rows == 1 ? gradients<1, T> : rows == 2 ? gradients<2, T> : gradients<4, T>)(                                 \
            *z, upstream_top, upstream_height, upstream_width, offsets, at, packed, upstream, out, threads);           \
    }

extern "C" {
EXPORT(float32, float)
EXPORT(float64, double)

int64_t taps_tile() { return TILE; }
int64_t taps_rows(int64_t width) { return rows_of(width); }

// The taps of a mask (targets, sources, kernel, kernel), or of the mask turned for the gradient of the signal: sources
// and targets change places, rows and columns run backwards. flat : index of each in the mask.
void taps_index(int64_t targets, int64_t sources, int64_t kernel, int64_t turned, int64_t group, int64_t packed_height,
                int64_t packed_width, int64_t lanes, const unsigned char *mask, int32_t *offsets, int32_t *at,
                int64_t *flat) {
    const int64_t square = kernel * kernel;
    const int64_t to_target = turned ? square : sources * square, to_source = turned ? targets * square : square;
    int32_t found = 0;
    offsets[0] = 0;
    for (int64_t first = 0; first < sources; first += group) {
        const int64_t last = std::min(first + group, sources);
        for (int64_t k = 0; k < targets; ++k) {
            for (int64_t s = first; s < last; ++s) {
                const int64_t base = k * to_target + s * to_source;
                for (int64_t place = 0; place < square; ++place) {
                    const int64_t index = base + (turned ? square - 1 - place : place);
                    if (!mask[index]) continue;
                    const int64_t row = (s - first) * packed_height + place / kernel;
                    at[found] = static_cast<int32_t>((row * packed_width + place % kernel) * lanes);
                    flat[found++] = index;
                }
            }
            *++offsets = found;
        }
    }
}
}
