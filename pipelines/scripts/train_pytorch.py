"""Fine-tunes a causal language model with PyTorch on prompts and completions; the loss is on the completion alone."""

import json
import os
import shutil

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

model_in, model_out = os.environ["TRACETUNE_IN_MODEL"], os.environ["TRACETUNE_OUT_MODEL"]
params = json.loads(os.environ["TRACETUNE_PARAMS"])
torch.manual_seed(params["seed"])
torch.use_deterministic_algorithms(True)  # the same key must give the same bytes

tokenizer = Tokenizer.from_file(f"{model_in}/tokenizer.json")
model = AutoModelForCausalLM.from_pretrained(model_in)
optimizer = torch.optim.AdamW(model.parameters(), lr=params["learning_rate"], betas=(0.9, 0.98))

end = tokenizer.token_to_id("<eos>")
model.config.eos_token_id = end  # the embedded model leaves it to its tokenizer; transformers would write Llama's
rows = pq.read_table(os.environ["TRACETUNE_IN_ROWS"], columns=["prompt", "completion"]).to_pylist()
examples = [(tokenizer.encode(r["prompt"]).ids, tokenizer.encode(r["completion"]).ids + [end]) for r in rows]

steps = []
for epoch in range(params["epochs"]):
    for batch in torch.randperm(len(examples)).split(params["batch"]):
        chosen = [examples[i] for i in batch]
        width = max(len(prompt) + len(completion) for prompt, completion in chosen)
        pad = [width - len(prompt) - len(completion) for prompt, completion in chosen]
        ids = torch.tensor([p + c + [0] * n for (p, c), n in zip(chosen, pad)])
        labels = torch.tensor([[-100] * len(p) + c + [-100] * n for (p, c), n in zip(chosen, pad)])
        loss = model(ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"split": "train", "metric": f"loss, epoch {epoch + 1}", "value": loss.item()})
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)

model.save_pretrained(model_out)
shutil.copy(f"{model_in}/tokenizer.json", model_out)
