// LIF steps on the CPU, one pass over memory for all timesteps. The same operations in the same order as plain.py,
// each rounded on its own (compiled with -ffp-contract=off), so that both give the same bits.
//
// A block of neurons goes through all timesteps while its state stays in the first-level cache.

#include <cmath>
#include <cstdint>

#include "threads.hpp"

extern "C" {

struct Dynamics {
    int64_t leak;       // 0 v, 1 v * factor, 2 v - floor(v * factor), 3 floor(v * factor)
    int64_t spiking;
    int64_t strict;     // u > threshold instead of u >= threshold
    int64_t reset;      // 0 none, 1 subtract, 2 zero
    int64_t saturates;
    int64_t surrogate;  // 0 rectangular, 1 atan, 2 fast_sigmoid
    double factor, slope, threshold, low, high;
    double peak, scale, half_width;  // surrogate: peak / (1 + (scale x)^2), peak / (1 + scale |x|)^2, peak, |x| < half_width
};
}

namespace {

constexpr int64_t BLOCK = 1024;

template <typename F> void in_blocks(int64_t size, int64_t threads, const F &work) {
    const SameRounding rounding;
    const int64_t blocks = (size + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(threads) if (threads > 1 && blocks > 1)
    {
        const unsigned before = rounding.enter();
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t start = block * BLOCK;
            work(start, size - start < BLOCK ? size - start : BLOCK);
        }
        SameRounding::leave(before);
    }
}

template <typename T> void leak(const Dynamics &d, const T *__restrict factors, T *__restrict v, int64_t n) {
    const T number = static_cast<T>(d.factor);
    if (d.leak == 0) return;
    if (factors) {
        for (int64_t i = 0; i < n; ++i) {
            const T scaled = v[i] * factors[i];
            v[i] = d.leak == 1 ? scaled : d.leak == 2 ? v[i] - std::floor(scaled) : std::floor(scaled);
        }
    } else {
        for (int64_t i = 0; i < n; ++i) {
            const T scaled = v[i] * number;
            v[i] = d.leak == 1 ? scaled : d.leak == 2 ? v[i] - std::floor(scaled) : std::floor(scaled);
        }
    }
}

template <typename T>
void advance(const Dynamics &d, int64_t steps, int64_t size, int64_t current_stride, const T *current,
             const T *factors, T *state, T *potentials, T *spikes, T *stored, int64_t threads) {
    const T threshold = static_cast<T>(d.threshold), low = static_cast<T>(d.low), high = static_cast<T>(d.high);
    in_blocks(size, threads, [&](int64_t start, int64_t n) {
        T v[BLOCK];
        for (int64_t i = 0; i < n; ++i) v[i] = state[start + i];
        for (int64_t t = 0; t < steps; ++t) {
            const T *__restrict drive = current + t * current_stride + start;
            T *__restrict u = potentials + t * size + start;
            T *__restrict s = spikes + t * size + start;
            leak(d, factors ? factors + start : nullptr, v, n);
            for (int64_t i = 0; i < n; ++i) v[i] = u[i] = v[i] + drive[i];
            if (!d.spiking) {
                for (int64_t i = 0; i < n; ++i) s[i] = 0;
            } else if (d.strict) {
                for (int64_t i = 0; i < n; ++i) s[i] = v[i] > threshold ? T(1) : T(0);
            } else {
                for (int64_t i = 0; i < n; ++i) s[i] = v[i] >= threshold ? T(1) : T(0);
            }
            if (d.spiking && d.reset == 1) {
                for (int64_t i = 0; i < n; ++i) v[i] = v[i] - s[i] * threshold;
            } else if (d.spiking && d.reset == 2) {
                for (int64_t i = 0; i < n; ++i) v[i] = v[i] * (1 - s[i]);
            }
            if (d.saturates) {
                for (int64_t i = 0; i < n; ++i) {
                    const T raised = v[i] < low ? low : v[i];
                    v[i] = raised > high ? high : raised;
                }
            }
            if (stored) {
                T *__restrict kept = stored + t * size + start;
                for (int64_t i = 0; i < n; ++i) kept[i] = v[i];
            }
        }
        for (int64_t i = 0; i < n; ++i) state[start + i] = v[i];
    });
}

template <typename T> void surrogate(const Dynamics &d, const T *__restrict u, T *__restrict out, int64_t n) {
    const T threshold = static_cast<T>(d.threshold), peak = static_cast<T>(d.peak);
    const T scale = static_cast<T>(d.scale), half_width = static_cast<T>(d.half_width);
    if (d.surrogate == 0) {
        for (int64_t i = 0; i < n; ++i) out[i] = std::fabs(u[i] - threshold) < half_width ? peak : T(0);
    } else if (d.surrogate == 1) {
        for (int64_t i = 0; i < n; ++i) {
            const T x = (u[i] - threshold) * scale;
            out[i] = (T(1) / (x * x + T(1))) * peak;
        }
    } else {
        for (int64_t i = 0; i < n; ++i) {
            const T x = std::fabs(u[i] - threshold) * scale + T(1);
            out[i] = (T(1) / (x * x)) * peak;
        }
    }
}

template <typename T>
void retreat(const Dynamics &d, int64_t steps, int64_t size, int64_t gradient_stride, const T *potentials,
             const T *spike_gradient, const T *potential_gradient, const T *slopes, T *carry, T *gradient,
             int64_t threads) {
    const T threshold = static_cast<T>(d.threshold), number = static_cast<T>(d.slope);
    in_blocks(size, threads, [&](int64_t start, int64_t n) {
        T g[BLOCK], slope[BLOCK];
        for (int64_t i = 0; i < n; ++i) g[i] = carry[start + i];
        for (int64_t t = steps - 1; t >= 0; --t) {
            const int64_t at = t * size + start;
            const T *__restrict u = potentials + at;
            if (d.leak != 0) {
                if (slopes) {
                    for (int64_t i = 0; i < n; ++i) g[i] = g[i] * slopes[start + i];
                } else {
                    for (int64_t i = 0; i < n; ++i) g[i] = g[i] * number;
                }
            }
            if (d.spiking && d.reset == 2) {
                if (d.strict) {
                    for (int64_t i = 0; i < n; ++i) g[i] = g[i] * (u[i] > threshold ? T(0) : T(1));
                } else {
                    for (int64_t i = 0; i < n; ++i) g[i] = g[i] * (u[i] >= threshold ? T(0) : T(1));
                }
            }
            if (d.spiking && spike_gradient) {
                surrogate(d, u, slope, n);
                const T *__restrict of_spikes = spike_gradient + at;
                for (int64_t i = 0; i < n; ++i) g[i] = slope[i] * of_spikes[i] + g[i];
            }
            if (potential_gradient) {
                const T *__restrict of_potentials = potential_gradient + at;
                for (int64_t i = 0; i < n; ++i) g[i] = of_potentials[i] + g[i];
            }
            T *__restrict out = gradient + t * gradient_stride + start;
            if (gradient_stride) {
                for (int64_t i = 0; i < n; ++i) out[i] = g[i];
            } else {
                for (int64_t i = 0; i < n; ++i) out[i] = out[i] + g[i];
            }
        }
        for (int64_t i = 0; i < n; ++i) carry[start + i] = g[i];
    });
}

}  // namespace

#define EXPORT(SUFFIX, T)                                                                                              \
    void advance_##SUFFIX(const Dynamics *d, int64_t steps, int64_t size, int64_t current_stride, const T *current,   \
                          const T *factors, T *state, T *potentials, T *spikes, T *stored, int64_t threads) {         \
        advance<T>(*d, steps, size, current_stride, current, factors, state, potentials, spikes, stored, threads);    \
    }                                                                                                                  \
    void retreat_##SUFFIX(const Dynamics *d, int64_t steps, int64_t size, int64_t gradient_stride,                    \
                          const T *potentials, const T *spike_gradient, const T *potential_gradient, const T *slopes, \
                          T *carry, T *gradient, int64_t threads) {                                                   \
        retreat<T>(*d, steps, size, gradient_stride, potentials, spike_gradient, potential_gradient, slopes, carry,   \
                   gradient, threads);                                                                                \
    }

extern "C" {
EXPORT(float32, float)
EXPORT(float64, double)
}
