// What the kernels' parallel loops have in common.

#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

// Workers take the caller's treatment of denormals, as far as the machine has one.
class SameRounding {
#if defined(__SSE__)
    unsigned wanted_ = _mm_getcsr();

public:
    unsigned enter() const {
        const unsigned before = _mm_getcsr();
        _mm_setcsr(wanted_);
        return before;
    }
    static void leave(unsigned before) { _mm_setcsr(before); }
#else
public:
    unsigned enter() const { return 0; }
    static void leave(unsigned) {}
#endif
};
