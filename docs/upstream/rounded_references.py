"""TRL's precomputed reference log-probabilities are rounded under DeepSpeed in bf16: run it, no GPU and no download.

    python docs/upstream/rounded_references.py

It prints the reference's log-probabilities as they were computed and as the loss gets them, and the first loss, which
is ln 2 = 0.693147 when policy and reference are the same model.
"""

import os
import tempfile

os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}
os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu", "TQDM_DISABLE": "1"}

import deepspeed.ops
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # which would need a C++ compiler
words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<pad>", "</s>", "a", "b", "c"])}, "a"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
torch.manual_seed(0)
sizes = LlamaConfig(vocab_size=5, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
directory = tempfile.mkdtemp()
trainer = DPOTrainer(
    model=LlamaForCausalLM(sizes).to(torch.bfloat16),
    args=DPOConfig(
        output_dir=directory,
        deepspeed={
            "train_micro_batch_size_per_gpu": "auto",
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": 2},
        },
        precompute_ref_log_probs=True,
        bf16=True,
        use_cpu=True,
        activation_checkpointing=False,
        max_steps=1,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    ),
    train_dataset=Dataset.from_dict(
        {"prompt": ["a"] * 8, "chosen": [" b a c" * 20] * 8, "rejected": [" c b" * 20] * 8}
    ),
    processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"),
    peft_config=LoraConfig(r=4, target_modules="all-linear"),
)
batch = next(iter(trainer.get_train_dataloader()))
prepared = trainer._prepare_inputs(batch)  # what Trainer.training_step hands to the loss
trainer.train()
for name in ("ref_chosen_logps", "ref_rejected_logps"):
    print(name, "computed", batch[name][0].item(), "used", prepared[name][0].item(), prepared[name].dtype)
print("first loss", trainer.state.log_history[0]["loss"])
