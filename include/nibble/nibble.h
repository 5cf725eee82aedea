/* SPDX-License-Identifier: Apache-2.0
 *
 * nibble: low-bit optimizers. This header is the whole C API of libnibble.
 *
 * Use, in four steps:
 *   1. nibble_optimizer_create()     a rule ("adamw") and a state format ("int8")
 *   2. nibble_optimizer_add_param()  once for each parameter tensor: name, shape, dtype
 *   3. nibble_optimizer_bind()       once: where the parameter's weights are
 *   4. nibble_optimizer_step()       each step: pointers to the gradients; weights change in place
 *
 * Conventions
 * Status     Functions return nibble_status: 0, or a negative code; then nibble_last_error() tells
 *            what was wrong, and nothing has changed. The library never prints, exits or aborts.
 * Sizes      Elements, blocks and bytes are 64-bit. Tensors are contiguous, in row-major order.
 * Structs    The first field, struct_size, is sizeof the struct as the caller knows it. Zero in
 *            any other field means its default. Fields are only ever appended; a longer struct
 *            from a newer caller is accepted if what this library does not know is zero.
 * Strings    Zero-terminated. Those passed in are copied during the call.
 * Ownership  Weights and gradients are the caller's: weights are borrowed from bind until the
 *            optimizer is destroyed or bound elsewhere, all else during the call. States belong to
 *            the optimizer.
 * Threads    Distinct optimizers may be used from distinct threads; one optimizer from one thread
 *            at a time. Work runs on the library's threads (nibble_set_thread_count); calls return
 *            when it is done.
 * Bits       The same inputs give the same bits whatever the thread count, the instruction set and
 *            the caller's floating-point environment.
 */
#ifndef NIBBLE_NIBBLE_H
#define NIBBLE_NIBBLE_H

#include <stdint.h>

#define NIBBLE_VERSION_MAJOR 0
#define NIBBLE_VERSION_MINOR 1
#define NIBBLE_VERSION_PATCH 0

#if defined(__GNUC__)
#define NIBBLE_API __attribute__((visibility("default")))
#else
#define NIBBLE_API
#endif

#if defined(__cplusplus)
#define NIBBLE_NOEXCEPT noexcept
extern "C" {
#else
#define NIBBLE_NOEXCEPT
#endif

/* ---- Status ------------------------------------------------------------------------------- */

typedef int32_t nibble_status;

enum {
  NIBBLE_OK = 0,
  NIBBLE_INVALID_ARGUMENT = -10, /* what can never work */
  NIBBLE_WRONG_ORDER = -20,      /* a legal call, but not now */
  NIBBLE_UNSUPPORTED = -30,      /* a valid request that this build or machine cannot serve */
  NIBBLE_OUT_OF_MEMORY = -40,
  NIBBLE_IO = -50,
  NIBBLE_CORRUPT = -60,
  NIBBLE_NON_FINITE = -70, /* gradients with NaN or infinity; the step was not taken */
  NIBBLE_INTERNAL = -100   /* a defect of the library's own */
};

/* "NIBBLE_OK", ...; "unknown status" for any other number. Never NULL; static. */
NIBBLE_API const char* nibble_status_name(nibble_status status) NIBBLE_NOEXCEPT;

/* What the last failing call on this thread complained of: one line, never NULL, valid until the
 * next failing call on this thread. Successful calls leave it as it is. */
NIBBLE_API const char* nibble_last_error(void) NIBBLE_NOEXCEPT;

/* "0.1.0". Static. */
NIBBLE_API const char* nibble_version_string(void) NIBBLE_NOEXCEPT;

/* ---- Process-wide settings. Not to be changed while any other call runs. ------------------ */

/* Threads for all work of this process; 0 restores the default: the CPUs that the process may use
 * (affinity and cgroup quota). INVALID_ARGUMENT if negative. */
NIBBLE_API nibble_status nibble_set_thread_count(int32_t threads) NIBBLE_NOEXCEPT;
NIBBLE_API int32_t nibble_thread_count(void) NIBBLE_NOEXCEPT;

/* The instruction set: "scalar", "avx2", "avx512"; NULL or "auto" for the best. Without a call the
 * environment variable NIBBLE_ISA is read once. UNSUPPORTED if this CPU lacks it,
 * INVALID_ARGUMENT for an unknown name; the choice then stays. For tests: results do not differ. */
NIBBLE_API nibble_status nibble_set_isa(const char* name) NIBBLE_NOEXCEPT;

/* The one in use; "avx512_base" is AVX-512 without VBMI. NULL, with an error message, if NIBBLE_ISA
 * asks for what cannot be. Static. */
NIBBLE_API const char* nibble_isa_name(void) NIBBLE_NOEXCEPT;

/* ---- Rules and formats, by name ----------------------------------------------------------- */

/* Names for i in [0, count); NULL outside. Static. Rules are the update formulas:
 *   "adamw"  Loshchilov and Hutter, ICLR 2019, algorithm 2.
 * Formats are how optimizer states are kept:
 *   "fp32"   4 bytes an element.
 *   "int8"   1 byte an element and a float absmax a block, through the dynamic map of Dettmers et
 *            al., ICLR 2022 (the layout of bitsandbytes: signed map for the first moment, unsigned
 *            for the second). */
NIBBLE_API int32_t nibble_rule_count(void) NIBBLE_NOEXCEPT;
NIBBLE_API const char* nibble_rule_name(int32_t i) NIBBLE_NOEXCEPT;
NIBBLE_API int32_t nibble_format_count(void) NIBBLE_NOEXCEPT;
NIBBLE_API const char* nibble_format_name(int32_t i) NIBBLE_NOEXCEPT;

/* ---- Optimizer ---------------------------------------------------------------------------- */

typedef struct nibble_optimizer nibble_optimizer;

/* What happens to gradients with NaN or infinity (after scaling). */
enum {
  NIBBLE_NONFINITE_SKIP_STEP = 0,    /* step() changes nothing and returns NIBBLE_NON_FINITE */
  NIBBLE_NONFINITE_SKIP_ELEMENT = 1, /* those elements are not updated */
  NIBBLE_NONFINITE_PROPAGATE = 2     /* not looked for */
};

typedef struct nibble_optimizer_desc {
  uint32_t struct_size;
  uint32_t nonfinite;       /* NIBBLE_NONFINITE_*; default skip step */
  const char* rule;         /* default "adamw" */
  const char* state_format; /* default "int8" */
  /* Whose conventions: "default", the safest (int8: as "bnb", but a positive second moment never
   * takes the zero code, and blocks that overflow saturate); "torch": torch.optim (fp32 states
   * only); "bnb": bitsandbytes' reference quantiser, nearest code and ties to the lower. All decay
   * the weights before the update. */
  const char* mode;
  int64_t block_size;             /* of quantised states: a power of two, 32 .. 4096; default 256 */
  int64_t min_quantized_elements; /* smaller parameters keep fp32 states; default 4096 */
  double learning_rate;           /* default 1e-3. A real 0: nibble_optimizer_set_hyper */
  double beta1;                   /* default 0.9 */
  double beta2;                   /* default 0.999 */
  double eps;                     /* default 1e-8 */
  double weight_decay;            /* default 0: none */
} nibble_optimizer_desc;

/* *out is the caller's until nibble_optimizer_destroy. INVALID_ARGUMENT, UNSUPPORTED (an unknown
 * rule, format or mode, or a pair that does not go together), OUT_OF_MEMORY; *out is NULL then. */
NIBBLE_API nibble_status nibble_optimizer_create(nibble_optimizer** out,
                                                 const nibble_optimizer_desc* desc) NIBBLE_NOEXCEPT;

/* Frees it and its states. NULL is allowed. */
NIBBLE_API void nibble_optimizer_destroy(nibble_optimizer* opt) NIBBLE_NOEXCEPT;

typedef struct nibble_param_desc {
  uint32_t struct_size;
  uint32_t n_dims; /* 0: a scalar */
  const char* name;
  const int64_t* shape;     /* n_dims extents */
  const char* weight_dtype; /* default "F32", the only one in this version */
  const char* state_format; /* default: the optimizer's, or fp32 for small parameters. A format
                               named here is used whatever the size. */
} nibble_param_desc;

/* Allocates the parameter's states, at zero. Parameters are numbered from 0 in the order of these
 * calls. out_index and out_state_bytes may be NULL. Errors as for create. */
NIBBLE_API nibble_status nibble_optimizer_add_param(nibble_optimizer* opt,
                                                    const nibble_param_desc* desc,
                                                    int64_t* out_index,
                                                    uint64_t* out_state_bytes) NIBBLE_NOEXCEPT;

/* Where the parameter's weights are: count elements of its dtype. Borrowed until destroyed or bound
 * elsewhere. */
NIBBLE_API nibble_status nibble_optimizer_bind(nibble_optimizer* opt, int64_t param,
                                               void* weights) NIBBLE_NOEXCEPT;

typedef struct nibble_step_desc {
  uint32_t struct_size;
  /* Not 0: the caller warrants that grad * grad_scale is finite (nibble_global_norm has told, say),
   * which spares a pass over the gradients. */
  uint32_t grads_are_finite;
  const float* const* grads; /* n_grads pointers, one a parameter, in order; not changed */
  int64_t n_grads;
  double grad_scale;      /* multiplies every gradient (as a float); default 1 */
  int64_t* out_nonfinite; /* may be NULL: how many non-finite gradients were found */
} nibble_step_desc;

/* One step of all parameters: weights and states change in place. All or nothing: after any error
 * nothing has changed. WRONG_ORDER if a parameter is not bound; NON_FINITE as `nonfinite` says.
 * Gradients must not overlap weights. */
NIBBLE_API nibble_status nibble_optimizer_step(nibble_optimizer* opt,
                                               const nibble_step_desc* desc) NIBBLE_NOEXCEPT;

/* Between steps. Names: "learning_rate", "beta1", "beta2", "eps", "weight_decay". Zero is zero. */
NIBBLE_API nibble_status nibble_optimizer_set_hyper(nibble_optimizer* opt, const char* name,
                                                    double value) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_get_hyper(const nibble_optimizer* opt, const char* name,
                                                    double* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_set_learning_rate(nibble_optimizer* opt,
                                                            double value) NIBBLE_NOEXCEPT;

/* Steps taken, which the bias corrections count; set it when resuming. */
NIBBLE_API nibble_status nibble_optimizer_step_count(const nibble_optimizer* opt,
                                                     int64_t* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_set_step_count(nibble_optimizer* opt,
                                                         int64_t count) NIBBLE_NOEXCEPT;

/* ---- What a parameter really got, and its states ------------------------------------------ */

typedef struct nibble_param_info {
  uint32_t struct_size;     /* set by the caller, as in descriptors */
  uint32_t n_states;        /* arrays of nibble_optimizer_state_info */
  const char* name;         /* strings live as long as the optimizer */
  const char* state_format; /* what is used */
  const char* reason;       /* why */
  int64_t count;            /* elements */
  int64_t block_size;       /* 0 if the format has no blocks */
  uint64_t state_bytes;
} nibble_param_info;

NIBBLE_API nibble_status nibble_optimizer_param_count(const nibble_optimizer* opt,
                                                      int64_t* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_param_info(const nibble_optimizer* opt, int64_t param,
                                                     nibble_param_info* out) NIBBLE_NOEXCEPT;

/* The states as arrays, for checkpoints. With the same descriptors, loading every array and the
 * step count resumes to the bit. */
typedef struct nibble_state_info {
  uint32_t struct_size;
  uint32_t reserved;
  const char* name;  /* "exp_avg", "exp_avg.absmax", "exp_avg_sq", ... */
  const char* dtype; /* as safetensors writes it: "F32", "U8" */
  int64_t count;     /* elements of that dtype */
  uint64_t bytes;
  const void* data; /* the optimizer's own memory: read only, changed by step and load_state */
} nibble_state_info;

NIBBLE_API nibble_status nibble_optimizer_state_count(const nibble_optimizer* opt, int64_t param,
                                                      int64_t* out) NIBBLE_NOEXCEPT;
NIBBLE_API nibble_status nibble_optimizer_state_info(const nibble_optimizer* opt, int64_t param,
                                                     int64_t state,
                                                     nibble_state_info* out) NIBBLE_NOEXCEPT;
/* Copies `bytes` bytes, which must be what state_info tells. */
NIBBLE_API nibble_status nibble_optimizer_load_state(nibble_optimizer* opt, int64_t param,
                                                     int64_t state, const void* data,
                                                     uint64_t bytes) NIBBLE_NOEXCEPT;

/* ---- Tensor functions --------------------------------------------------------------------- */

/* The Euclidean norm of n tensors of counts[i] floats together, in double. The sum has a fixed
 * tree. If any element is not finite *out_norm is infinity. out_nonfinite (their number) may be
 * NULL. */
NIBBLE_API nibble_status nibble_global_norm(const float* const* tensors, const int64_t* counts,
                                            int64_t n, double* out_norm,
                                            int64_t* out_nonfinite) NIBBLE_NOEXCEPT;

typedef struct nibble_quantize_desc {
  uint32_t struct_size;
  uint32_t is_signed; /* 1: the signed map; 0: the unsigned one (values >= 0) */
  const char* format; /* a quantised format; default "int8" */
  const char* mode;   /* "default" or "bnb", as above */
  int64_t block_size; /* default 256 */
} nibble_quantize_desc;

/* Bytes of codes and number of absmax values for `count` elements. Either out may be NULL. */
NIBBLE_API nibble_status nibble_quantized_size(const nibble_quantize_desc* desc, int64_t count,
                                               uint64_t* out_code_bytes,
                                               int64_t* out_absmax_count) NIBBLE_NOEXCEPT;

/* count floats at src to codes and absmax, sized as nibble_quantized_size tells. For a block:
 *   absmax = max |x|;  s = clamp(x * (1 / max(absmax, 1e-38)), -1, 1);  code = nearest to s. */
NIBBLE_API nibble_status nibble_quantize(const nibble_quantize_desc* desc, const float* src,
                                         int64_t count, void* codes, float* absmax) NIBBLE_NOEXCEPT;

/* x = map[code] * absmax: count floats to dst. */
NIBBLE_API nibble_status nibble_dequantize(const nibble_quantize_desc* desc, const void* codes,
                                           const float* absmax, int64_t count,
                                           float* dst) NIBBLE_NOEXCEPT;

#if defined(__cplusplus)
} /* extern "C" */
#endif

#endif /* NIBBLE_NIBBLE_H */
