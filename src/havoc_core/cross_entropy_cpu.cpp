// Cross-entropy over rows of logits for the CPU: the sum of the losses, and the logits' gradient written over them.
//
// A row is read three times while it lies in the cache: its maximum, the sum of exponentials (kept in float32, in the row
// itself or in scratch of the thread), the gradient. Exponentials are added up in float32 over 512 columns and in double
// over the row, the losses in double in the order of the rows: the result does not depend on the number of threads.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

struct bf16 { uint16_t x; };

static inline float up(bf16 b) { uint32_t u = (uint32_t)b.x << 16; float f; memcpy(&f, &u, 4); return f; }
static inline float up(float f) { return f; }
static inline void put(bf16& d, float f) { uint32_t u; memcpy(&u, &f, 4); d.x = (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16); }
static inline void put(float& d, float f) { d = f; }

// e^d for d <= 0, relative error 2e-7; 0 below e^-86, which keeps products with it out of the (slow) denormal range; NaN
// stays NaN, so that a model that has diverged is noticed. d = n ln 2 + f with ln 2 in two parts, the first of nine bits,
// so that n times it is exact. The polynomial's relative error on |f| <= ln 2 / 2 is 3e-9 (Lawson's iteration).
static inline float exp_neg(float d) {
  const float x = d < -86.f ? -86.f : d;
  const float n = rintf(x * 1.44269504f);
  const float f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.381454008e-3f;
  p = p * f + 8.368745213e-3f;
  p = p * f + 4.166839079e-2f;
  p = p * f + 1.666652040e-1f;
  p = p * f + 4.999999343e-1f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  uint32_t u;
  memcpy(&u, &p, 4);
  u += (uint32_t)(int32_t)n << 23;
  memcpy(&p, &u, 4);
  return d < -86.f ? 0.f : p;
}

// Loss of one row of V logits, which become their gradient; e: V floats, may be the row.
template <class S> static double one_row(S* row, float* e, long V, long label, double z_weight) {
  float top = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : top)
  for (long j = 0; j < V; ++j) { const float x = up(row[j]); top = x > top ? x : top; }
  const float picked = up(row[label]);
  double sum = 0;
  for (long begin = 0; begin < V; begin += 512) {
    const long end = V - begin < 512 ? V : begin + 512;
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (long j = begin; j < end; ++j) { const float x = exp_neg(up(row[j]) - top); e[j] = x; part += x; }
    sum += part;
  }
  const double log_z = top + std::log(sum);
  const double slope = (1 + 2 * z_weight * log_z) / sum;  // of log Z + z_weight (log Z)^2, by an exponential
  const double at_label = e[label] * slope - 1;           // before the row is written: e may be the row
  const float factor = (float)slope;
#pragma omp simd
  for (long j = 0; j < V; ++j) put(row[j], e[j] * factor);
  put(row[label], (float)at_label);
  return log_z - picked + z_weight * log_z * log_z;
}

template <class S>
static double run(S* logits, const int64_t* labels, long rows, long V, int64_t ignored, double z_weight, int threads) {
  std::vector<double> losses(rows, 0.0);
#pragma omp parallel num_threads(threads)
  {
    static thread_local std::vector<float> scratch;  // kept between calls: fresh pages cost more than the arithmetic
    if (sizeof(S) != sizeof(float) && (long)scratch.size() < V) scratch.resize(V);
#pragma omp for schedule(dynamic, 4)
    for (long i = 0; i < rows; ++i) {
      S* row = logits + i * V;
      float* e = sizeof(S) == sizeof(float) ? (float*)row : scratch.data();
      if (labels[i] == ignored) memset((void*)row, 0, V * sizeof(S));
      else losses[i] = one_row(row, e, V, labels[i], z_weight);
    }
  }
  double total = 0;
  for (long i = 0; i < rows; ++i) total += losses[i];
  return total;
}

// logits [rows, V], contiguous; labels in 0 .. V-1 or `ignored`: the caller has looked.
extern "C" double cross_entropy(void* logits, const int64_t* labels, long rows, long V, int64_t ignored, double z_weight,
                                int is_bf16, int threads) {
  return is_bf16 ? run((bf16*)logits, labels, rows, V, ignored, z_weight, threads)
                 : run((float*)logits, labels, rows, V, ignored, z_weight, threads);
}
