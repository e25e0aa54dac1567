#pragma once

// Declarations of the kernels of one instruction set; table.cpp collects them.

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace triptych::cpu::TRIPTYCH_ISA {

template <class T>
void rms_norm(const T* x, const T* residual, const T* weight, float eps, int64_t rows, int64_t D,
              T* sum, T* y, float* rstd);
template <class T>
void rms_norm_backward(const T* dy, const T* residual_grad, const T* x, const T* weight,
                       const float* rstd, int64_t rows, int64_t D, T* dx, float* dweight);
template <class T, class Table>
void rotary(const T* x, int64_t stride, const Table* cos, const Table* sin, int64_t heads,
            int64_t K, int64_t y_stride, bool inverse, T* y);
template <class T>
void swiglu(const T* gate, const T* up, int64_t n, T* y);
template <class T>
void swiglu_backward(const T* dy, const T* gate, const T* up, int64_t n, T* dgate, T* dup);
template <class T>
void adamw(const T* grad, const AdamWRange& range, int64_t n, const AdamWCoefficients& c);
template <class T>
double sum_of_squares(const T* x, int64_t n);
template <class T>
void accumulate(const T* x, int64_t n, float* sum);

}  // namespace triptych::cpu::TRIPTYCH_ISA
