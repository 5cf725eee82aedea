/* SPDX-License-Identifier: Apache-2.0
 * The smallest use of libnibble from C: minimise |w - target|^2 with int8 AdamW. */
#include <nibble/nibble.h>
#include <stdio.h>
#include <stdlib.h>

enum { kCount = 8192, kSteps = 500 };

static int failed(nibble_status status) {
  if (status != NIBBLE_OK) {
    fprintf(stderr, "%s: %s\n", nibble_status_name(status), nibble_last_error());
  }
  return status != NIBBLE_OK;
}

int main(void) {
  static float weights[kCount];
  static float grads[kCount];
  const int64_t shape[1] = {kCount};
  const void* all_grads[1];
  double loss = 0.0;
  int step = 0;
  int i = 0;
  nibble_optimizer* opt = NULL;
  nibble_optimizer_desc optimizer = {0};
  nibble_param_desc param = {0};
  nibble_step_desc now = {0};

  optimizer.struct_size = sizeof optimizer;
  optimizer.rule = "adamw";
  optimizer.state_format = "int8";
  optimizer.learning_rate = 0.01;
  param.struct_size = sizeof param;
  param.name = "w";
  param.n_dims = 1;
  param.shape = shape;
  all_grads[0] = grads;
  now.struct_size = sizeof now;
  now.grads = all_grads;
  now.n_grads = 1;

  if (failed(nibble_optimizer_create(&opt, &optimizer)) ||
      failed(nibble_optimizer_add_param(opt, &param, NULL, NULL)) ||
      failed(nibble_optimizer_bind(opt, 0, weights))) {
    nibble_optimizer_destroy(opt);
    return EXIT_FAILURE;
  }
  for (step = 0; step < kSteps; ++step) {
    loss = 0.0;
    for (i = 0; i < kCount; ++i) {
      const float difference = weights[i] - (float)(i % 7) / 7.0F;
      loss += (double)difference * difference;
      grads[i] = 2.0F * difference;
    }
    if (failed(nibble_optimizer_step(opt, &now))) {
      nibble_optimizer_destroy(opt);
      return EXIT_FAILURE;
    }
  }
  nibble_optimizer_destroy(opt);
  printf("nibble %s, %s: loss %.3g after %d steps\n", nibble_version_string(), nibble_isa_name(),
         loss, kSteps);
  return loss < 1e-2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
