// One step of the decoder on a CPU: rows of tokens from any number of texts go through all blocks in one call.
//
// A row is a token at a position of its text. Nothing that a row is computed from depends on the other rows of the call: every
// sum runs over its terms in one fixed order, whatever the shape of the tile it lies in, and attention goes through the text's
// own pages from the first position on. So a text gets the same bits alone and in a batch, in one chunk and in many.
//
// Weights are read where they lie, [out, in], as float32, bfloat16 or int8 with a scale for each row; activations and sums are
// float32. Vectors are GCC's, so that one source serves AVX2, AVX-512 and what else there is; where GCC would widen them in
// several steps, one instruction is named. It is compiled without contraction: where a product is fused with a sum is written
// down, or the compiler would fuse in one tile and not in the next.
//
// M rows, D model width, H query heads, K key/value heads, E head width, F inner width, V vocabulary, R rotated channels.

#include <omp.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int W = 16;  // float32 in a vector
constexpr int TILE[5] = {0, 8, 8, 6, 6};  // rows of weights in a tile with 1, 2, 3, 4 rows of tokens: sums fill 32 registers
#else
constexpr int W = 8;
constexpr int TILE[5] = {0, 8, 6, 4, 3};  // 16 registers
#endif
constexpr long ROWS_AT_ONCE = 32;  // rows of activations that stay in the L2 cache while all weights pass

typedef float Floats __attribute__((vector_size(W * 4)));
typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef uint32_t Words __attribute__((vector_size(W * 4)));
typedef uint16_t Halves __attribute__((vector_size(W * 2)));
typedef int8_t Bytes __attribute__((vector_size(W)));

template <class T>
inline T load(const void* from) {
    T out;
    std::memcpy(&out, from, sizeof out);
    return out;
}

inline Floats fused(Floats a, Floats b, Floats c) {  // a * b + c, rounded once
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    for (int i = 0; i < W; ++i) c[i] = std::fma(a[i], b[i], c[i]);
    return c;
#endif
}

inline float sum(Floats v) {
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) v[i] += v[i + half];
    return v[0];
}

struct Float32 {
    typedef float Value;
    static Floats vector(const Value* from) { return load<Floats>(from); }
    static float number(Value value) { return value; }
    static Value narrow(float value) { return value; }
};

struct BFloat16 {
    typedef uint16_t Value;
    static Floats vector(const Value* from) {
#if defined(__AVX512F__)
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load<__m256i>(from)), 16));
#elif defined(__AVX2__)
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(from)), 16));
#else
        Words wide = __builtin_convertvector(load<Halves>(from), Words) << 16;
        return load<Floats>(&wide);
#endif
    }
    static float number(Value value) {
        uint32_t wide = uint32_t(value) << 16;
        return load<float>(&wide);
    }
    static Value narrow(float value) {  // to nearest, ties to even; NaN stays one
        uint32_t bits = load<uint32_t>(&value);
        if (value != value) return uint16_t((bits >> 16) | 0x40);
        return uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }
};

struct Int8 {
    typedef int8_t Value;
    static Floats vector(const Value* from) {
#if defined(__AVX512F__)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(from)));
#elif defined(__AVX2__)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
        return __builtin_convertvector(__builtin_convertvector(load<Bytes>(from), Ints), Floats);
#endif
    }
};

// exp, to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf). At or below 0 it never
// overflows, which is all that a softmax and a sigmoid need.
inline Floats exp(Floats x) {
    const Floats lowest = Floats{} - 87.0f;
    x = x < lowest ? lowest : x;
    Floats n = x * 1.44269504088896341f;
    Ints whole = __builtin_convertvector(n + (n < 0.0f ? Floats{} - 0.5f : Floats{} + 0.5f), Ints);
    n = __builtin_convertvector(whole, Floats);
    Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Floats p = Floats{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints scale = (whole + 127) << 23;
    return p * load<Floats>(&scale);
}

struct Matrix {
    const void* values;   // [out, in]
    const float* scales;  // [out] for int8, else null
};

struct Layer {
    const float *input_norm, *post_norm, *q_norm, *k_norm;  // q_norm and k_norm may be null
    Matrix q, k, v, o, gate, up, down;
};

}  // namespace

extern "C" {

struct Model {
    const Layer* layers;
    const void* embedding;  // [V, D], in the dtype of keys and values
    Matrix head;            // [V, D]
    const float *norm, *cos, *sin;  // [D]; [positions, R / 2] each
    long num_layers, D, H, K, E, F, V, R;
    float eps;
    int weights;  // 0 float32, 1 bfloat16, 2 int8
    int cache;    // 0 float32, 1 bfloat16: keys, values, embedding
    int gelu;     // exact GELU instead of SiLU
};

struct Step {
    const int64_t* tokens;     // [M]
    const int32_t* positions;  // [M]
    const int32_t* texts;      // [M]: which row of `pages` a token belongs to
    const int32_t* pages;      // [texts, max_pages]
    void *keys, *values;       // [layers, pages, K, page_size, E]
    const int32_t* wanted;     // [num_wanted]: rows whose logits or hidden states are wanted
    float* logits;             // [num_wanted, V] or null
    float* hidden;             // [num_wanted, D] or null, normalised
    float* scratch;            // `scratch_floats` of them
    long M, max_pages, num_pages, page_size, num_wanted, max_length;
    int threads;
};

}  // extern "C"

namespace {

enum Then { STORE, ADD };

template <class Kind, int MR, int NR, Then then>
inline void tile(const float* x, long ldx, const typename Kind::Value* w, const float* scales, long in, float* y, long ldy) {
    Floats sums[MR][NR] = {};
    for (long k = 0; k < in; k += W) {
        Floats b[NR];
#pragma GCC unroll 8
        for (int n = 0; n < NR; ++n) b[n] = Kind::vector(w + n * in + k);
#pragma GCC unroll 4
        for (int m = 0; m < MR; ++m) {
            Floats a = load<Floats>(x + m * ldx + k);
#pragma GCC unroll 8
            for (int n = 0; n < NR; ++n) sums[m][n] = fused(a, b[n], sums[m][n]);
        }
    }
    for (int m = 0; m < MR; ++m)
        for (int n = 0; n < NR; ++n) {
            const float total = sum(sums[m][n]) * (scales ? scales[n] : 1.0f);
            y[m * ldy + n] = then == ADD ? y[m * ldy + n] + total : total;
        }
}

template <class Kind, int MR, Then then>
inline void strip(const float* x, long ldx, Matrix w, long in, long from, long to, float* y, long ldy) {
    const auto* values = static_cast<const typename Kind::Value*>(w.values);
    long n = from;
    for (; n + TILE[MR] <= to; n += TILE[MR])
        tile<Kind, MR, TILE[MR], then>(x, ldx, values + n * in, w.scales ? w.scales + n : nullptr, in, y + n, ldy);
    for (; n < to; ++n)
        tile<Kind, MR, 1, then>(x, ldx, values + n * in, w.scales ? w.scales + n : nullptr, in, y + n, ldy);
}

// y[m, n] = or += x[m] . w[n] for the rows `from` to `to` of the weights. Four rows of tokens share a pass over a strip.
template <class Kind, Then then>
void multiply(const float* x, long M, long in, Matrix w, long from, long to, float* y, long ldy) {
    const long wide = 4 * TILE[4];
    for (long first = 0; first < M; first += ROWS_AT_ONCE) {
        const long last = std::min(M, first + ROWS_AT_ONCE);
        for (long n = from; n < to; n += wide) {
            const long end = std::min(to, n + wide);
            long m = first;
            for (; m + 4 <= last; m += 4) strip<Kind, 4, then>(x + m * in, in, w, in, n, end, y + m * ldy, ldy);
            const float* rest = x + m * in;
            float* out = y + m * ldy;
            if (last - m == 3) strip<Kind, 3, then>(rest, in, w, in, n, end, out, ldy);
            if (last - m == 2) strip<Kind, 2, then>(rest, in, w, in, n, end, out, ldy);
            if (last - m == 1) strip<Kind, 1, then>(rest, in, w, in, n, end, out, ldy);
        }
    }
}

struct Range {
    long from, to;
};

// What this thread works on of n pieces of work, in whole groups: neighbours in memory stay together.
inline Range share(long n, long group) {
    const long groups = (n + group - 1) / group, threads = omp_get_num_threads(), me = omp_get_thread_num();
    return {std::min(n, groups * me / threads * group), std::min(n, groups * (me + 1) / threads * group)};
}

template <class Kind, Then then>
void multiply_shared(const float* x, long M, long in, Matrix w, long out, float* y) {
    const Range mine = share(out, 24);
    multiply<Kind, then>(x, M, in, w, mine.from, mine.to, y, out);
}

void normalise(const float* x, const float* weight, long n, float eps, float* out) {
    Floats squares = {};
    for (long i = 0; i < n; i += W) {
        Floats v = load<Floats>(x + i);
        squares = fused(v, v, squares);
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / float(n) + eps);
    for (long i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void rotate(float* x, const float* cos, const float* sin, long R) {
    for (long i = 0; i < R / 2; ++i) {
        const float first = x[i], second = x[i + R / 2];
        x[i] = first * cos[i] - second * sin[i];
        x[i + R / 2] = second * cos[i] + first * sin[i];
    }
}

void gate_by(float* gate, const float* up, long n, bool gelu) {
    if (gelu) {
        for (long i = 0; i < n; ++i) gate[i] = 0.5f * gate[i] * (1.0f + std::erf(gate[i] * 0.70710678118654752f)) * up[i];
        return;
    }
    for (long i = 0; i < n; i += W) {
        alignas(64) float g[W] = {}, u[W] = {};
        const long count = std::min<long>(W, n - i);
        std::memcpy(g, gate + i, count * 4);
        std::memcpy(u, up + i, count * 4);
        Floats x = load<Floats>(g), magnitude = x < 0.0f ? x : -x;  // exp of what is at most 0
        Floats small = exp(magnitude);
        Floats sigmoid = (x < 0.0f ? small : Floats{} + 1.0f) / (1.0f + small);
        Floats out = x * sigmoid * load<Floats>(u);
        std::memcpy(gate + i, &out, count * 4);
    }
}

// Attention of one row for the query heads that share a key/value head. scores: [H / K, length up to whole vectors].
template <class Kind>
void attend(const Model& model, const Step& step, long layer, long row, long head, const float* q, float* out, float* scores) {
    typedef typename Kind::Value Value;
    const long E = model.E, group = model.H / model.K, length = step.positions[row] + 1, page = step.page_size;
    const long stride = (length + W - 1) / W * W;
    const int32_t* pages = step.pages + step.texts[row] * step.max_pages;
    const float scale = 1.0f / std::sqrt(float(E));
    auto place = [&](const void* pool, long number) {
        return static_cast<const Value*>(pool) + (((layer * step.num_pages + pages[number]) * model.K + head) * page) * E;
    };
    for (long at = 0; at < length; ++at) {
        const Value* key = place(step.keys, at / page) + at % page * E;
        for (long g = 0; g < group; ++g) {
            Floats total = {};
            for (long e = 0; e < E; e += W) total = fused(load<Floats>(q + g * E + e), Kind::vector(key + e), total);
            scores[g * stride + at] = sum(total) * scale;
        }
    }
    for (long g = 0; g < group; ++g) {
        float* mine = scores + g * stride;
        const float most = *std::max_element(mine, mine + length);
        for (long at = length; at < stride; ++at) mine[at] = -INFINITY;
        Floats totals = {};
        for (long at = 0; at < stride; at += W) {
            Floats p = exp(load<Floats>(mine + at) - most);
            for (long i = std::max<long>(0, length - at); i < W; ++i) p[i] = 0.0f;
            std::memcpy(mine + at, &p, sizeof p);
            totals += p;
        }
        const float share = 1.0f / sum(totals);
        float* to = out + g * E;
        std::fill(to, to + E, 0.0f);
        for (long at = 0; at < length; ++at) {
            const Value* value = place(step.values, at / page) + at % page * E;
            const float weight = mine[at] * share;
            for (long e = 0; e < E; e += W) {
                Floats sums = fused(Floats{} + weight, Kind::vector(value + e), load<Floats>(to + e));
                std::memcpy(to + e, &sums, sizeof sums);
            }
        }
    }
}

template <class Cache>
void place_row(const Model& model, const Step& step, long number, long m, float* q, float* k, const float* v) {
    typedef typename Cache::Value Value;
    const Layer& layer = model.layers[number];
    const long E = model.E, at = step.positions[m], page = step.page_size;
    const float *cos = model.cos + at * (model.R / 2), *sin = model.sin + at * (model.R / 2);
    for (long h = 0; h < model.H; ++h) {
        if (layer.q_norm) normalise(q + h * E, layer.q_norm, E, model.eps, q + h * E);
        rotate(q + h * E, cos, sin, model.R);
    }
    const long block = (number * step.num_pages + step.pages[step.texts[m] * step.max_pages + at / page]) * model.K;
    for (long h = 0; h < model.K; ++h) {
        if (layer.k_norm) normalise(k + h * E, layer.k_norm, E, model.eps, k + h * E);
        rotate(k + h * E, cos, sin, model.R);
        Value* key = static_cast<Value*>(step.keys) + ((block + h) * page + at % page) * E;
        Value* value = static_cast<Value*>(step.values) + ((block + h) * page + at % page) * E;
        for (long e = 0; e < E; ++e) key[e] = Cache::narrow(k[h * E + e]);
        for (long e = 0; e < E; ++e) value[e] = Cache::narrow(v[h * E + e]);
    }
}

long scores_floats(const Model& model, long max_length) { return model.H / model.K * ((max_length + W - 1) / W * W); }

template <class Kind, class Cache>
void run(const Model& model, const Step& step) {
    const long M = step.M, D = model.D, E = model.E, HE = model.H * E, KE = model.K * E, F = model.F;
    float *x = step.scratch, *normed = x + M * D, *q = normed + M * D, *k = q + M * HE, *v = k + M * KE;
    float *mixed = v + M * KE, *gate = mixed + M * HE, *up = gate + M * F, *scores = up + M * F;
#pragma omp parallel num_threads(step.threads)
    {
        float* my_scores = scores + omp_get_thread_num() * scores_floats(model, step.max_length);
        auto normalise_rows = [&](const float* weight) {
#pragma omp for schedule(static)
            for (long m = 0; m < M; ++m) normalise(x + m * D, weight, D, model.eps, normed + m * D);
        };
#pragma omp for schedule(static)
        for (long m = 0; m < M; ++m) {
            const auto* row = static_cast<const typename Cache::Value*>(model.embedding) + step.tokens[m] * D;
            for (long d = 0; d < D; ++d) x[m * D + d] = Cache::number(row[d]);
        }
        for (long number = 0; number < model.num_layers; ++number) {
            const Layer& layer = model.layers[number];
            normalise_rows(layer.input_norm);
            multiply_shared<Kind, STORE>(normed, M, D, layer.q, HE, q);
            multiply_shared<Kind, STORE>(normed, M, D, layer.k, KE, k);
            multiply_shared<Kind, STORE>(normed, M, D, layer.v, KE, v);
#pragma omp barrier
#pragma omp for schedule(static)
            for (long m = 0; m < M; ++m) place_row<Cache>(model, step, number, m, q + m * HE, k + m * KE, v + m * KE);
#pragma omp for schedule(dynamic)
            for (long task = 0; task < M * model.K; ++task) {
                const long m = task / model.K, head = task % model.K, from = m * HE + head * (HE / model.K);
                attend<Cache>(model, step, number, m, head, q + from, mixed + from, my_scores);
            }
            multiply_shared<Kind, ADD>(mixed, M, HE, layer.o, D, x);
#pragma omp barrier
            normalise_rows(layer.post_norm);
            const Range mine = share(F, 24);
            multiply<Kind, STORE>(normed, M, D, layer.gate, mine.from, mine.to, gate, F);
            multiply<Kind, STORE>(normed, M, D, layer.up, mine.from, mine.to, up, F);
            for (long m = 0; m < M; ++m)
                gate_by(gate + m * F + mine.from, up + m * F + mine.from, mine.to - mine.from, model.gelu);
#pragma omp barrier
            multiply_shared<Kind, ADD>(gate, M, F, layer.down, D, x);
#pragma omp barrier
        }
#pragma omp for schedule(static)
        for (long i = 0; i < step.num_wanted; ++i)
            normalise(x + step.wanted[i] * D, model.norm, D, model.eps, normed + i * D);
        if (step.hidden) {
#pragma omp for schedule(static)
            for (long i = 0; i < step.num_wanted; ++i) std::memcpy(step.hidden + i * D, normed + i * D, D * 4);
        }
        if (step.logits) multiply_shared<Kind, STORE>(normed, step.num_wanted, D, model.head, model.V, step.logits);
    }
}

}  // namespace

extern "C" {

long vector_width() { return W; }

long scratch_floats(const Model* model, long M, long max_length, long threads) {
    const long rows = 2 * model->D + 2 * (model->H + model->K) * model->E + 2 * model->F;
    return M * rows + threads * scores_floats(*model, max_length);
}

void forward(const Model* model, const Step* step) {
    switch (model->weights * 2 + model->cache) {
        case 0: run<Float32, Float32>(*model, *step); break;
        case 3: run<BFloat16, BFloat16>(*model, *step); break;
        case 4: run<Int8, Float32>(*model, *step); break;
        case 5: run<Int8, BFloat16>(*model, *step); break;
    }
}

}  // extern "C"
