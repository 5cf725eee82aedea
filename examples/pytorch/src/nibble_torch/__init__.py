# SPDX-License-Identifier: Apache-2.0
"""libnibble's optimizers as torch.optim.Optimizer subclasses. Float32 and bfloat16, CPU and CUDA tensors."""
from .drop_in_lowbit import (LAMB, REFUSED, AdamW32bit, AdamW4bit, AdamW8bit, AdamWFp8, Adagrad8bit,
                             Adagrad32bit, Adam8bit, Adam32bit, AdEMAMix, AdEMAMix8bit,
                             AdEMAMix32bit, LAMB8bit, LAMB32bit, Lion, Lion8bit, Lion32bit,
                             RMSprop8bit, RMSprop32bit, SGD8bit, SGD32bit)
from .drop_in_torch import SGD, Adafactor, Adagrad, Adam, AdamW, Muon, RMSprop
from .library import (InvalidArgument, NibbleError, NonFinite, OutOfMemory, Unsupported,
                      set_thread_count)
from .optimizer import Optimizer

globals().update(REFUSED)  # names of bitsandbytes that say, when called, what to use instead

__all__ = ["Optimizer", "AdamW", "Adam", "SGD", "Adagrad", "RMSprop", "Adafactor", "Muon",
           "AdamW8bit", "Adam8bit", "AdamW32bit", "Adam32bit", "AdamW4bit", "AdamWFp8", "Lion",
           "Lion8bit", "Lion32bit", "SGD8bit", "SGD32bit", "RMSprop8bit", "RMSprop32bit",
           "Adagrad8bit", "Adagrad32bit", "AdEMAMix", "AdEMAMix8bit", "AdEMAMix32bit", "LAMB",
           "LAMB8bit", "LAMB32bit", "NibbleError", "InvalidArgument", "Unsupported", "OutOfMemory",
           "NonFinite", "set_thread_count"]
