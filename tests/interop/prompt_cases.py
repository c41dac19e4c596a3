# /// script
# requires-python = ">=3.10"
# dependencies = ["jinja2>=3.1", "msgpack>=1.0", "pyzmq>=24", "tokenizers", "transformers>=4.51"]
# ///
"""Formatted prompts of a running encoder against transformers' own chat template, and, where the template
has nothing to say, against the format of docs/command-line.md ("Conversation").

    prompt_cases.py --hub ENDPOINT --tokenizer DIR --client orchestrate/python/latentwire_client.py

Prints "ok NAME" or "not ok NAME" a line. Text and token ids are compared, for each case."""

import argparse, importlib.util, itertools, json, os, struct, sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
PROMPTS = ["a cat", "", "  padded \n", "two\n\nlines", "树 café cafe\u0301", 'a sign "OPEN"', "<think>\nx\n</think>\n\ny",
           "<|im_end|>\n<|im_start|>user\nz", "<tool_response>\n7\n</tool_response>"]
SYSTEMS = [None, "You are a painter.", "two\nlines "]
user, assistant, system, tool = (lambda text, role=role, **more: {"role": role, "content": text, **more}
                                 for role in ("user", "assistant", "system", "tool"))
TURNS = {
    "answer": [user("a dog"), assistant("Here it is.")],
    "reasoning": [user("a dog"), assistant("Here.", reasoning_content="\nfur\n")],
    "think in the content": [user("a dog"), assistant("<think>\nfur\n</think>\n\nHere.")],
    "two answers": [user("a dog"), assistant("One."), user("two dogs"), assistant("Two.", reasoning_content="count")],
    "an empty answer": [user("a dog"), assistant("")],
    "a tool": [user("7?"), assistant("Asking."), tool("7"), tool("8"), assistant("Seven.")],
    "no question": [assistant("Hello.")],
    "two questions": [user("a dog"), user("no, a cat")],
    "markup": [user("<|im_end|>"), assistant("\n\n a \n")],
}


def documented(prompt, system=None, thinking="", assistant="", think_block=False):
    """The format as documented, for one turn."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    text += f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    text += f"<think>\n{thinking}\n</think>\n\n" if thinking or think_block else ""
    return text + (f"{assistant}<|im_end|>" if assistant else "")


def template_cases(render):
    """(name, request, expected text) of what transformers' template covers."""
    for (i, prompt), (k, system_prompt) in itertools.product(enumerate(PROMPTS), enumerate(SYSTEMS)):
        messages = ([system(system_prompt)] if system_prompt else []) + [user(prompt)]
        request = {"prompt": prompt, **({"system_prompt": system_prompt} if system_prompt else {})}
        for thinking in (True, False):
            if thinking or i < 2:
                yield (f"template: prompt {i}, system {k}, thinking {thinking}",
                       request | ({} if thinking else {"think_block": True}), render(messages, thinking))
    for (name, turns), where in itertools.product(TURNS.items(), ("none", "field", "message")):
        for thinking in (True, False):
            first = [] if where == "none" else [system("Draw.")]
            sent = first + turns if where == "message" else turns
            request = {"prompt": "now blue", "messages": json.dumps(sent)}
            if where == "field":
                request["system_prompt"] = "Draw."
            if not thinking:
                request["think_block"] = True
            yield (f"template: {name}, system {where}, thinking {thinking}", request,
                   render(first + turns + [user("now blue")], thinking))
    for name in ("reasoning", "no question"):  # a prompt that looks like a tool's answer is none for the template
        yield (f"template: {name}, then a tool's answer", {"prompt": PROMPTS[8], "messages": json.dumps(TURNS[name])},
               render(TURNS[name] + [user(PROMPTS[8])], True))


def documented_cases():
    """What only latentwire's own format has: a think block with content, an answer that was begun."""
    for system_prompt, thinking, answer, block in itertools.product((None, "S."), ("", "soft\nlight"), ("", "A fluffy"),
                                                                   (False, True)):
        given = {"system_prompt": system_prompt, "thinking": thinking, "assistant": answer, "think_block": block}
        request = {"prompt": "a cat"} | {k: v for k, v in given.items() if v}
        if thinking or answer:
            yield (f"format: {', '.join(k for k in request if k != 'prompt')}", request,
                   documented("a cat", system_prompt, thinking, answer, block))
    yield ("format: in full", {"prompt": "a cat", "system_prompt": "You are a painter.", "thinking": "soft light",
                               "assistant": "A fluffy cat."},
           "<|im_start|>system\nYou are a painter.<|im_end|>\n<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
           "<think>\nsoft light\n</think>\n\nA fluffy cat.<|im_end|>")
    yield ("format: turns, thinking and an answer",
           {"prompt": "p", "messages": json.dumps(TURNS["answer"]), "thinking": "t", "assistant": "a"},
           "<|im_start|>user\na dog<|im_end|>\n<|im_start|>assistant\nHere it is.<|im_end|>\n" + documented("p", None, "t", "a"))
    yield "format: raw", {"prompt": "<|im_start|>x", "raw": True}, "<|im_start|>x"
    yield "format: weighting", {"prompt": "a (red:1.3) \\(cat\\)", "weighting": True}, documented("a red (cat)")
    yield "format: brackets are text", {"prompt": "a (red:1.3)"}, documented("a (red:1.3)")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--hub", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--client", required=True)
    a = p.parse_args()
    from transformers import AutoTokenizer

    spec = importlib.util.spec_from_file_location("latentwire_client", a.client)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client = module.Client(a.hub)
    tokenizer = AutoTokenizer.from_pretrained(a.tokenizer)
    render = lambda messages, thinking: tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    sys.stderr = open(os.devnull, "w")  # progress
    for name, request, expected in [*template_cases(render), *documented_cases()]:
        header, tensors = client.run(**{"from": "prompt", "to": "token_ids", **request})
        ids = [i for (i,) in struct.iter_unpack("<i", tensors["token_ids"][2])]
        lengths = [i for (i,) in struct.iter_unpack("<i", tensors["token_bytes"][2])]
        text = bytes(tensors["text"][2]).decode()
        want = tokenizer(expected, add_special_tokens=False)["input_ids"]
        good = text == expected and ids == want and sum(lengths) == len(text.encode()) and header["n_tokens"] == len(ids)
        print("ok" if good else "not ok", name, flush=True)
        if not good:
            print(f"# got {text!r} {ids}\n# not {expected!r} {want}", flush=True)


if __name__ == "__main__":
    main()
