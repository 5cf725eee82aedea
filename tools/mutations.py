# SPDX-License-Identifier: Apache-2.0
"""The mistakes of tools/mutate.py: what each small change of a C++ source looks like.

Written for clang-formatted code: binary operators have spaces around them, templates and pointers
do not. What a mistake cannot be told from without a compiler is left to the compiler, which refuses
it.
"""
import re

SWAPS = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "<": "<=", "<=": "<", ">": ">=",
         ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "<<": ">>", ">>": "<<",
         "&": "|", "|": "&", "^": "|", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "|=": "&="}
WORDS = {"true": "false", "false": "true", "hn::Add": "hn::Sub", "hn::Sub": "hn::Add",
         "hn::Gt": "hn::Ge", "hn::Ge": "hn::Gt", "hn::Lt": "hn::Le", "hn::Le": "hn::Lt",
         "hn::And": "hn::Or", "hn::Or": "hn::And", "hn::AndNot": "hn::And", "hn::Xor": "hn::Or",
         "hn::ShiftLeft": "hn::ShiftRight", "hn::ShiftRight": "hn::ShiftLeft",
         "hn::MulAdd": "hn::MulSub", "hn::NegMulAdd": "hn::MulAdd", "hn::Ceil": "hn::Floor"}
KEEP_ARGUMENT = {  # the call becomes one of these arguments
    "min": (0, 1), "max": (0, 1), "clamp": (0,), "abs": (0,), "saturated": (0,), "sqrt": (0,),
    "hn::Min": (0, 1), "hn::Max": (0, 1), "hn::Abs": (0,), "hn::Ceil": (0,), "hn::Sqrt": (0,),
    "hn::IfThenElse": (1, 2), "hn::IfThenElseZero": (1,), "hn::ZeroIfNegative": (0,)}


def operators(text):
    binary = r"(?<=[\w)\]}]) ([-+*/|]=|[<>=!]=|<<|>>|&&|\|\||[-+*/%<>&|^])(?=\s)"
    for m in re.finditer(binary, text):
        yield m.start(1), m.end(1), SWAPS[m[1]]
    for m in re.finditer(r"\b(?:hn::\w+|true|false)\b", text):
        if m[0] in WORDS:
            yield m.start(), m.end(), WORDS[m[0]]
    unary = r"(?<=[\s(])!(?=[\w(])|(?:(?<=[=,?:(] )|(?<=return )|(?<=\())-(?=[\w(])"
    for m in re.finditer(unary, text):
        yield m.start(), m.end(), ""


def constants(text):
    # An array's size is left alone: a larger one is the same, a smaller one for the sanitizers.
    sizes = (r"^[ ]*(?!return)(?:alignas\(\d+\) )?[\w:]+ [^=;(]*\[\w+\](?: = \{\})?;"
             r"|std::array<[^<>]*>")
    sized = [m.span() for m in re.finditer(sizes, text, re.M)]
    for m in re.finditer(r"(?<![\w.])(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)(?![\w.])", text):
        if any(a <= m.start() < b for a, b in sized):
            continue
        value = int(m[1], 0)
        shown = hex if m[1].lower().startswith("0x") else str
        yield m.start(), m.end(), shown(value + 1) + m[2]
        if value > 0:
            yield m.start(), m.end(), shown(value - 1) + m[2]
    exact = r"0x[0-9a-fA-F.]+p[-+]?\d+|\d+\.\d*(?:e[-+]?\d+)?|\d+e[-+]?\d+"
    for m in re.finditer(rf"(?<![\w.])({exact})(F?)(?![\w.])", text):
        value = float.fromhex(m[1]) if m[1].startswith("0x") else float(m[1])
        other = {0.0: "1.0", 1.0: "0.0"}.get(value, f"{value * 1.01!r}")
        yield m.start(), m.end(), other + m[2]


def arguments(text, opening):
    """[(start, end)] of a call's arguments, and the end of the call."""
    depth, begin, found = 0, opening + 1, []
    for i in range(opening, len(text)):
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
        if depth == 0 or (depth == 1 and text[i] == ","):
            found.append((begin, i))
            begin = i + 1
        if depth == 0:
            return found, i + 1
    return [], len(text)


def calls(text):
    for m in re.finditer(r"(?<![\w.>:])((?:(?:std|math)::)?)((?:hn::)?[A-Za-z]\w*)\(", text):
        name = m[2]
        fused = name in ("fma", "hn::MulAdd", "hn::NegMulAdd")
        if not fused and name not in KEEP_ARGUMENT:
            continue
        found, end = arguments(text, m.end() - 1)
        parts = [text[a:b].strip() for a, b in found]
        if any(re.match(r"(float|double|V|Vec|VecF)\b[&*]? \w+$", p) for p in parts):
            continue  # a declaration
        if fused and len(parts) == 3:
            yield m.start(), end, f"{m[1]}{name}({parts[0]}, {parts[2]}, {parts[1]})"
        for k in KEEP_ARGUMENT.get(name, ()):
            if k < len(parts):
                yield m.start(), end, f"({parts[k]})"


def statements(text):
    for m in re.finditer(r"(?<=[;{}:])\s*\n[ ]+(?=[\w*(+])", text):
        start = m.end()
        end = text.find(";", start)
        body = text[start:end]
        assigns = r"(?:[\w.\[\]>*():+-]+|[\w.]+\[[^\]\n]*\]) [-+*/|&^]?= |\+\+|break$|continue$"
        call = r"(?!return|static_assert|alignas|(?:for|if|while|switch)\b)[\w:.>-]+(?:<\w+>)?\("
        whole = body.count("(") == body.count(")") and "{" not in body
        if whole and (re.match(assigns, body) or re.match(call, body)):
            yield start, end, ""


def masked(text):
    """Comments, strings and preprocessor lines as blanks, so that offsets stay."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^#(?:\\\n|[^\n])*'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.M | re.S)

def mutations(text):
    """(start, end, replacement) of every mistake that is tried in a file's text."""
    clean = masked(text)
    for mutate in (operators, constants, calls, statements):
        for start, end, new in mutate(clean):
            if " ".join(text[start:end].split()) != " ".join(new.split()):
                yield start, end, new
