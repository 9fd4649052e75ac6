// The machine's longest vectors of numbers.

#pragma once

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

namespace {

template <typename T> struct Vector;
template <> struct Vector<float> {
    typedef float type __attribute__((vector_size(VECTOR_BYTES)));
};
template <> struct Vector<double> {
    typedef double type __attribute__((vector_size(VECTOR_BYTES)));
};

}  // namespace
