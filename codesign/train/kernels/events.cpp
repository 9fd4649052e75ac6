// Products of events and dense matrices on the CPU. Events are a matrix of 0 and 1, given as its ones: rows of indices in
// increasing order (CSR).
//
// out[m] = sum over the indices i of row m of table[i], added in their order, so that the bits depend neither on the
// threads nor on the vectors' width. The table is cut into strips of columns that stay in the second-level cache; a
// strip's sums stay in registers.

#include <cstdint>
#include <cstring>

#include "threads.hpp"
#include "vectors.hpp"

namespace {

constexpr int SUMS = 8;  // registers of a strip
template <typename T> constexpr int64_t STRIP = SUMS * VECTOR_BYTES / static_cast<int64_t>(sizeof(T));

// Ones of each row, as offsets; false if there is anything but 0 and 1.
template <typename T> int64_t count(int64_t rows, int64_t columns, const T *x, int64_t *offsets, int64_t threads) {
    int64_t others = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : others) if (threads > 1)
    for (int64_t m = 0; m < rows; ++m) {
        const T *__restrict row = x + m * columns;
        int32_t found = 0, odd = 0;
        for (int64_t j = 0; j < columns; ++j) {
            found += row[j] != T(0);
            odd += row[j] != T(0) && row[j] != T(1);
        }
        offsets[m + 1] = found;
        others += odd;
    }
    offsets[0] = 0;
    for (int64_t m = 0; m < rows; ++m) offsets[m + 1] += offsets[m];
    return others == 0;
}

template <typename T>
void fill(int64_t rows, int64_t columns, const T *x, const int64_t *offsets, int32_t *indices, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t m = 0; m < rows; ++m) {
        const T *__restrict row = x + m * columns;
        int64_t at = offsets[m];
        for (int64_t start = 0; start < columns; start += 64) {
            const int64_t n = columns - start < 64 ? columns - start : 64;
            unsigned char flags[64] = {};
            for (int64_t k = 0; k < n; ++k) flags[k] = row[start + k] != T(0);
            for (int64_t part = 0; part < n; part += 8) {
                uint64_t word;
                std::memcpy(&word, flags + part, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
                word = __builtin_bswap64(word);
#endif
                for (; word; word &= word - 1) {
                    indices[at++] = static_cast<int32_t>(start + part + (__builtin_ctzll(word) >> 3));
                }
            }
        }
    }
}

// The transpose: a counting sort, so that rows stay in increasing order.
void turn(int64_t rows, int64_t columns, const int64_t *offsets, const int32_t *indices, int64_t *turned_offsets,
          int32_t *turned_indices) {
    std::memset(turned_offsets, 0, sizeof(int64_t) * (columns + 1));
    for (int64_t e = 0; e < offsets[rows]; ++e) ++turned_offsets[indices[e] + 1];
    for (int64_t j = 0; j < columns; ++j) turned_offsets[j + 1] += turned_offsets[j];
    for (int64_t m = 0; m < rows; ++m) {
        for (int64_t e = offsets[m]; e < offsets[m + 1]; ++e) {
            turned_indices[turned_offsets[indices[e]]++] = static_cast<int32_t>(m);
        }
    }
    for (int64_t j = columns; j > 0; --j) turned_offsets[j] = turned_offsets[j - 1];
    turned_offsets[0] = 0;
}

template <typename T>
void row_sums(const T *strip, int64_t begin, int64_t end, const int32_t *indices, T *out, int64_t n) {
    using V = typename Vector<T>::type;
    V sums[SUMS] = {};
    for (int64_t e = begin; e < end; ++e) {
        const V *__restrict row = reinterpret_cast<const V *>(strip + static_cast<int64_t>(indices[e]) * STRIP<T>);
#pragma GCC unroll 8
        for (int k = 0; k < SUMS; ++k) sums[k] += row[k];
    }
    std::memcpy(out, sums, sizeof(T) * n);
}

// packed: room for strips x table_rows x STRIP, aligned to vectors.
template <typename T>
void gather(int64_t rows, int64_t table_rows, int64_t width, const int64_t *offsets, const int32_t *indices,
            const T *table, T *packed, T *out, int64_t threads) {
    const SameRounding rounding;
    const int64_t strips = (width + STRIP<T> - 1) / STRIP<T>;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const unsigned before = rounding.enter();
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < strips; ++b) {
            for (int64_t r = 0; r < table_rows; ++r) {
                const int64_t n = width - b * STRIP<T> < STRIP<T> ? width - b * STRIP<T> : STRIP<T>;
                T *to = packed + (b * table_rows + r) * STRIP<T>;
                std::memcpy(to, table + r * width + b * STRIP<T>, sizeof(T) * n);
                if (n < STRIP<T>) std::memset(to + n, 0, sizeof(T) * (STRIP<T> - n));
            }
        }
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < strips; ++b) {
            for (int64_t m = 0; m < rows; ++m) {
                const int64_t n = width - b * STRIP<T> < STRIP<T> ? width - b * STRIP<T> : STRIP<T>;
                row_sums(packed + b * table_rows * STRIP<T>, offsets[m], offsets[m + 1], indices,
                         out + m * width + b * STRIP<T>, n);
            }
        }
        SameRounding::leave(before);
    }
}

}  // namespace

#define EXPORT(SUFFIX, T)                                                                                              \
    int64_t events_strip_##SUFFIX() { return STRIP<T>; }                                                               \
    int64_t events_count_##SUFFIX(int64_t rows, int64_t columns, const T *x, int64_t *offsets, int64_t threads) {      \
        return count<T>(rows, columns, x, offsets, threads);                                                           \
    }                                                                                                                  \
    void events_fill_##SUFFIX(int64_t rows, int64_t columns, const T *x, const int64_t *offsets, int32_t *indices,     \
                              int64_t threads) {                                                                       \
        fill<T>(rows, columns, x, offsets, indices, threads);                                                          \
    }                                                                                                                  \
    void events_gather_##SUFFIX(int64_t rows, int64_t table_rows, int64_t width, const int64_t *offsets,               \
                                const int32_t *indices, const T *table, T *packed, T *out, int64_t threads) {          \
        gather<T>(rows, table_rows, width, offsets, indices, table, packed, out, threads);                             \
    }

extern "C" {
EXPORT(float32, float)
EXPORT(float64, double)

void events_turn(int64_t rows, int64_t columns, const int64_t *offsets, const int32_t *indices, int64_t *turned_offsets,
                 int32_t *turned_indices) {
    turn(rows, columns, offsets, indices, turned_offsets, turned_indices);
}
}
