"""The documents of the repository: their code blocks, commands, links and the names that they mention."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = {"python", "bash", "yaml", "text", "math", "bibtex"}  # others would be code that no test looks at
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents():
    """Every Markdown file that a reader meets, by its name relative to the repository."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("model_cards/*.md")]
    names = sorted(path.relative_to(ROOT).as_posix() for path in paths)
    return [name for name in names if name != "model_cards/template.md"]  # the card rendered from it is read


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    """Code blocks of one language, in order: (number of the line before, code)."""
    text = text_of(name)
    found = [match for match in _FENCE.finditer(text) if match[1] == language]
    return [(text.count("\n", 0, match.start()) + 1, match[2]) for match in found]


def languages(name):
    """Languages of the code blocks."""
    return {match[1] for match in _FENCE.finditer(text_of(name))}


def prose(name):
    """A document without its code blocks."""
    return _FENCE.sub("", text_of(name))


def commands(text):
    """Single commands of a shell text, as lists of words."""
    text = text.replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(words[:end])
            words = words[end + 1 :]
    return [words for words in found if words]


def shell_commands(name):
    """All commands in the bash blocks of a document."""
    return [words for _, code in blocks(name, "bash") for words in commands(code)]


def links(name):
    """Targets of links and pictures."""
    text = prose(name)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


def anchors(name):
    """What a link can lead to inside a document, as GitHub names it."""
    titles = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def inline_code(name):
    """Everything between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(name))
