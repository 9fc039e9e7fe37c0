"""The commands of the trainer image: arguments and body of each."""

import logging

# At its import, which is PEFT's, bitsandbytes looks for kernels on the Hub on some CPUs, and says that there are none.
logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)
