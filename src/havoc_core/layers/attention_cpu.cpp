// Causal attention inside documents for the CPU: forward and backward, grouped queries, bfloat16 and float32.
//
// Matrix products are torch's own brgemm (oneDNN's micro-kernels). What lies between two products (mask, exponential, row
// sums, rounding, the layout that the next product wants) is one pass over a tile that stays in the L2 cache; scores are
// never written to memory. The online softmax is that of FlashAttention (Dao et al. 2022, arXiv:2205.14135).
//
// Query row t sees the keys first[b][t] .. t. `first` never decreases, so a tile of rows begins reading at the first key of
// its first row: other documents are not computed and masked, they are not computed.
//
// One task is one (row of the batch, key/value head); threads take tasks from a counter. Tasks share nothing, so the result
// does not depend on the number of threads.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace c10 { struct BFloat16 { uint16_t x; }; }
namespace at::native::cpublas {
void brgemm(long, long, long, long, long, long, bool, const c10::BFloat16*, const c10::BFloat16*, float*, bool);
void brgemm(long, long, long, long, long, long, bool, const float*, const float*, float*, bool);
void brgemm_release(bool);
}
using bf16 = c10::BFloat16;
using at::native::cpublas::brgemm;

static inline float up(bf16 b) { uint32_t u = (uint32_t)b.x << 16; float f; memcpy(&f, &u, 4); return f; }
static inline float up(float f) { return f; }
static inline uint32_t rne(float f) { uint32_t u; memcpy(&u, &f, 4); return (u + 0x7fff + ((u >> 16) & 1)) >> 16; }
static inline void put(bf16& d, float f) { d.x = (uint16_t)rne(f); }
static inline void put(float& d, float f) { d = f; }

// 2^x for x <= 0, relative error 2e-7, vectorised by the compiler; 0 below 2^-100, which keeps
// products with it out of the (slow) denormal range
static inline float exp2_neg(float z) {
  const float x = z < -100.f ? -100.f : z;
  float n = rintf(x), f = x - n;
  float p = 1.5353362e-4f;
  p = p * f + 1.3398874e-3f;
  p = p * f + 9.6184373e-3f;
  p = p * f + 5.5503324e-2f;
  p = p * f + 2.4022648e-1f;
  p = p * f + 6.9314720e-1f;
  p = p * f + 1.0f;
  int32_t i = (int32_t)n << 23, u;
  memcpy(&u, &p, 4);
  u += i;
  memcpy(&p, &u, 4);
  return z < -100.f ? 0.f : p;
}

// dst[j][i] = src[i][j] for 16 x 16 words of 32 bit
static inline void turn16(const uint32_t* src, long ls, uint32_t* dst, long ld) {
#ifdef __AVX512F__
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(src + i * ls);
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    const int a = i, b = i + 8;
    _mm512_storeu_si512(dst + i * ld, _mm512_shuffle_i32x4(t[a], t[b], 0x88));
    _mm512_storeu_si512(dst + (i + 8) * ld, _mm512_shuffle_i32x4(t[a], t[b], 0xdd));
  }
#else
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) dst[j * ld + i] = src[i * ls + j];
#endif
}
static inline void turn_words(const uint32_t* src, long ls, long n, long m, uint32_t* dst, long ld) {
  for (long i = 0; i < n; i += 16)
    for (long j = 0; j < m; j += 16) turn16(src + i * ls + j, ls, dst + j * ld + i, ld);
}

template <class S> struct Tile {
  static constexpr bool vnni = std::is_same_v<S, bf16>;
  static void mm(long M, long N, long K, long lda, long ldb, long ldc, bool add, const S* A, const S* B, float* C) {
    brgemm(M, N, K, lda, ldb, ldc, add, A, B, C, vnni);
  }
  // src [n][E] (row step ld) -> the right operand src^T: [E/2][n][2] in bf16, [E][n] in fp32
  static void pack_t(const S* src, long ld, long n, long E, S* dst) {
    turn_words((const uint32_t*)src, vnni ? ld / 2 : ld, n, vnni ? E / 2 : E, (uint32_t*)dst, n);
  }
  // src [n][E] -> the right operand src: [n/2][E][2] in bf16, [n][E] in fp32
  static void pack(const S* src, long ld, long n, long E, S* dst) {
    if constexpr (vnni) {
      uint32_t* d = (uint32_t*)dst;
      for (long t = 0; t < n; t += 2)
        for (long e = 0; e < E; ++e) d[t / 2 * E + e] = src[t * ld + e].x | (uint32_t)src[(t + 1) * ld + e].x << 16;
    } else {
      for (long t = 0; t < n; ++t) memcpy(dst + t * E, src + t * ld, E * 4);
    }
  }
  // src [n][E] -> [E][n], the left operand src^T; tmp holds n * E
  static void turn(const S* src, long ld, long n, long E, S* dst, S* tmp) {
    if constexpr (vnni) {
      pack(src, ld, n, E, tmp);
      turn_words((const uint32_t*)tmp, E, n / 2, E, (uint32_t*)dst, n / 2);
    } else {
      turn_words((const uint32_t*)src, ld, n, E, (uint32_t*)dst, n);
    }
  }
};

// keys x..y of a row, widened to whole vectors; the added scores become -1e30
static inline void widen(float* s, const long x, const long y, long& xa, long& ya) {
  xa = x & ~31L; ya = (y + 31) & ~31L;
  for (long j = xa; j < x; ++j) s[j] = -1e30f;
  for (long j = y; j < ya; ++j) s[j] = -1e30f;
}

struct Args {
  const void *q, *k, *v, *o, *go;   // [B,T,heads,E]; steps of batch, time, head below; o and go contiguous
  void *out, *dq, *dk, *dv;         // contiguous
  float* lse;                       // [B,H,T], base 2
  const int32_t* first;             // [B,T]
  long B, T, H, K, E;
  long qb, qt, qh, kb, kt, kh, vb, vt, vh;
  long rows, cols;                  // tile of scores: rows queries x cols keys
  float scale;
};

// Scratch of one thread, kept between calls: fresh pages cost more than the arithmetic on them.
struct Work {
  char* base = nullptr; size_t used = 0, size = 0;
  void reserve(size_t n) {
    if (n > size) { free(base); size = (n + 4095) & ~size_t(4095); base = (char*)aligned_alloc(4096, size); }
  }
  ~Work() { free(base); }
  template <class X> X* take(long n) { X* p = (X*)(base + used); used += (n * sizeof(X) + 127) & ~size_t(63); return p; }
};

template <class S> void forward_task(const Args& a, long b, long kv, Work& w) {
  using M = Tile<S>;
  const long T = a.T, E = a.E, G = a.H / a.K, R = a.rows, C = a.cols;
  w.used = 0;
  S* kT = w.take<S>(T * E); S* vp = w.take<S>(T * E); S* p = w.take<S>(R * C);
  float* s = w.take<float>(R * C); float* acc = w.take<float>(R * E);
  float* m = w.take<float>(R); float* l = w.take<float>(R);
  M::pack_t((const S*)a.k + b * a.kb + kv * a.kh, a.kt, T, E, kT);
  M::pack((const S*)a.v + b * a.vb + kv * a.vh, a.vt, T, E, vp);
  const int32_t* first = a.first + b * T;
  const float sc = a.scale * 1.44269504f;
  const long two = M::vnni ? 2 : 1;
  for (long g = 0; g < G; ++g) {
    const long h = kv * G + g;
    for (long r0 = 0; r0 < T; r0 += R) {
      const long nr = T - r0 < R ? T - r0 : R, lo = first[r0] & ~63L, hi = r0 + nr;
      const S* q = (const S*)a.q + b * a.qb + r0 * a.qt + h * a.qh;
      for (long r = 0; r < nr; ++r) { m[r] = -1e30f; l[r] = 0; }
      for (long n0 = lo; n0 < hi; n0 += C) {
        const long nc = hi - n0 < C ? hi - n0 : C;
        M::mm(nr, nc, E, a.qt, T, nc, false, q, kT + n0 * two, s);
        for (long r = 0; r < nr; ++r) {
          const long t = r0 + r;
          long x = first[t] > n0 ? first[t] - n0 : 0, y = t + 1 - n0 < nc ? t + 1 - n0 : nc;
          float* __restrict sr = s + r * nc;
          S* __restrict pr = p + r * nc;
          if (y <= x) { memset(pr, 0, nc * sizeof(S)); continue; }
          widen(sr, x, y, x, y);
          float top = m[r];
#pragma omp simd reduction(max : top)
          for (long j = x; j < y; ++j) { float z = sr[j] * sc; top = z > top ? z : top; }
          float sum = 0;
          memset(pr, 0, x * sizeof(S));
#pragma omp simd reduction(+ : sum)
          for (long j = x; j < y; ++j) { float e = exp2_neg(sr[j] * sc - top); sum += e; put(pr[j], e); }
          memset(pr + y, 0, (nc - y) * sizeof(S));
          const float fade = m[r] > -1e29f ? exp2_neg(m[r] - top) : 0.f;
          l[r] = l[r] * fade + sum;
          m[r] = top;
          if (n0 > lo && fade != 1.f) for (long e = 0; e < E; ++e) acc[r * E + e] *= fade;
        }
        M::mm(nr, E, nc, nc, E, E, n0 > lo, p, vp + n0 * E, acc);
      }
      for (long r = 0; r < nr; ++r) {
        S* out = (S*)a.out + ((b * T + r0 + r) * a.H + h) * E;
        const float inv = 1.f / l[r];
        for (long e = 0; e < E; ++e) put(out[e], acc[r * E + e] * inv);
        a.lse[(b * a.H + h) * T + r0 + r] = m[r] + log2f(l[r]);
      }
    }
  }
}

template <class S> void backward_task(const Args& a, long b, long kv, Work& w) {
  using M = Tile<S>;
  const long T = a.T, E = a.E, G = a.H / a.K, R = a.rows, C = a.cols;
  w.used = 0;
  S* kT = w.take<S>(T * E); S* vT = w.take<S>(T * E); S* kp = w.take<S>(T * E);
  S* qT = w.take<S>(R * E); S* gT = w.take<S>(R * E);
  S* pv = w.take<S>(R * C); S* dv = w.take<S>(R * C); S* ds = w.take<S>(R * C);
  float* s = w.take<float>(R * C > T * E ? R * C : T * E); float* dp = w.take<float>(R * C);
  float* dq = w.take<float>(R * E); float* delta = w.take<float>(R);
  float* dkT = w.take<float>(T * E); float* dvT = w.take<float>(T * E);
  const S* k = (const S*)a.k + b * a.kb + kv * a.kh;
  M::pack_t(k, a.kt, T, E, kT);
  M::pack_t((const S*)a.v + b * a.vb + kv * a.vh, a.vt, T, E, vT);
  M::pack(k, a.kt, T, E, kp);
  memset(dkT, 0, T * E * 4); memset(dvT, 0, T * E * 4);
  const int32_t* first = a.first + b * T;
  const float sc = a.scale * 1.44269504f;
  const long two = M::vnni ? 2 : 1, ot = a.H * E;
  for (long g = 0; g < G; ++g) {
    const long h = kv * G + g;
    for (long r0 = 0; r0 < T; r0 += R) {
      const long nr = T - r0 < R ? T - r0 : R, lo = first[r0] & ~63L, hi = r0 + nr;
      const S* q = (const S*)a.q + b * a.qb + r0 * a.qt + h * a.qh;
      const S* go = (const S*)a.go + (b * T + r0) * ot + h * E;
      const S* o = (const S*)a.o + (b * T + r0) * ot + h * E;
      const float* lse = a.lse + (b * a.H + h) * T + r0;
      M::turn(q, a.qt, nr, E, qT, ds);
      M::turn(go, ot, nr, E, gT, ds);
      for (long r = 0; r < nr; ++r) {
        float d = 0;
#pragma omp simd reduction(+ : d)
        for (long e = 0; e < E; ++e) d += up(go[r * ot + e]) * up(o[r * ot + e]);
        delta[r] = d;
      }
      for (long n0 = lo; n0 < hi; n0 += C) {
        const long nc = hi - n0 < C ? hi - n0 : C;
        M::mm(nr, nc, E, a.qt, T, nc, false, q, kT + n0 * two, s);
        M::mm(nr, nc, E, ot, T, nc, false, go, vT + n0 * two, dp);
        for (long r = 0; r < nr; r += 2) {
          for (long c = 0; c < 2; ++c) {
            const long t = r0 + r + c;
            long x = first[t] > n0 ? first[t] - n0 : 0, y = t + 1 - n0 < nc ? t + 1 - n0 : nc;
            if (y <= x) x = y = nc;
            float* __restrict sr = s + (r + c) * nc;
            float* __restrict dr = dp + (r + c) * nc;
            widen(sr, x, y, x, y);
            const float ls = lse[r + c], de = delta[r + c];
            memset(sr, 0, x * 4); memset(dr, 0, x * 4);
#pragma omp simd
            for (long j = x; j < y; ++j) { float e = exp2_neg(sr[j] * sc - ls); sr[j] = e; dr[j] = e * (dr[j] - de); }
            memset(sr + y, 0, (nc - y) * 4); memset(dr + y, 0, (nc - y) * 4);
          }
          const float* __restrict s0 = s + r * nc; const float* __restrict s1 = s0 + nc;
          const float* __restrict d0 = dp + r * nc; const float* __restrict d1 = d0 + nc;
          if constexpr (M::vnni) {
            uint32_t* __restrict pw = (uint32_t*)pv + r / 2 * nc; uint32_t* __restrict dw = (uint32_t*)dv + r / 2 * nc;
            uint16_t* __restrict e0 = (uint16_t*)ds + r * nc; uint16_t* __restrict e1 = e0 + nc;
#pragma omp simd
            for (long j = 0; j < nc; ++j) {
              pw[j] = rne(s0[j]) | rne(s1[j]) << 16;
              const uint32_t u0 = rne(d0[j]), u1 = rne(d1[j]);
              dw[j] = u0 | u1 << 16;
              e0[j] = (uint16_t)u0; e1[j] = (uint16_t)u1;
            }
          }
        }
        const S *P = pv, *DV = dv, *DS = ds;
        if constexpr (!M::vnni) { P = s; DV = dp; DS = dp; }
        M::mm(E, nc, nr, nr, nc, T, true, gT, P, dvT + n0);
        M::mm(E, nc, nr, nr, nc, T, true, qT, DV, dkT + n0);
        M::mm(nr, E, nc, nc, E, E, n0 > lo, DS, kp + n0 * E, dq);
      }
      for (long r = 0; r < nr; ++r) {
        S* d = (S*)a.dq + ((b * T + r0 + r) * a.H + h) * E;
        for (long e = 0; e < E; ++e) put(d[e], dq[r * E + e] * a.scale);
      }
    }
  }
  turn_words((const uint32_t*)dkT, T, E, T, (uint32_t*)s, E);   // s is large enough: see run
  S* dk = (S*)a.dk + (b * T * a.K + kv) * E;
  for (long t = 0; t < T; ++t) for (long e = 0; e < E; ++e) put(dk[t * a.K * E + e], s[t * E + e] * a.scale);
  turn_words((const uint32_t*)dvT, T, E, T, (uint32_t*)s, E);
  S* dw = (S*)a.dv + (b * T * a.K + kv) * E;
  for (long t = 0; t < T; ++t) for (long e = 0; e < E; ++e) put(dw[t * a.K * E + e], s[t * E + e]);
}

template <class S> static void run(const Args& a, bool back) {
  std::atomic<long> next{0};
  const long n = a.B * a.K;
  const size_t bytes = a.T * a.E * (3 * sizeof(S) + 12) + a.rows * a.cols * (3 * sizeof(S) + 8) + a.rows * a.E * (2 * sizeof(S) + 4) + 64 * 1024;
#pragma omp parallel
  {
    static thread_local Work w;
    w.reserve(bytes);
    for (long i; (i = next++) < n;)
      back ? backward_task<S>(a, i / a.K, i % a.K, w) : forward_task<S>(a, i / a.K, i % a.K, w);
    at::native::cpublas::brgemm_release(Tile<S>::vnni);
  }
}

extern "C" void attention(const Args* a, int is_bf16, int back) {
  is_bf16 ? run<bf16>(*a, back) : run<float>(*a, back);
}
