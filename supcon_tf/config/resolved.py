"""Reads resolved configurations, such as config.gin, and compares them."""

import re

# A line of gin's configuration, and what follows of it on lines that begin with a space or bracket.
BINDING = r"^{} =\s*(.*(?:\n[ \t)\]}}].*)*)"

# The line above the defaults, which follow everything that is set.
DEFAULTS_HEADING = "# Defaults, where the caller does not give another value:"


def is_complete(resolved: str) -> bool:
    """Whether a resolved configuration was not cut off before its defaults."""
    return f"{DEFAULTS_HEADING}\n" in resolved


def parameter_values(
    resolved: str, *, defaults: bool = True, macros: bool = False
) -> dict[str, str]:
    """Name -> value, both as written in a resolved configuration.

    Args:
      resolved: from `parse`.
      defaults: whether they are included.
      macros: whether a macro in a value is replaced by its value.
    """
    found = re.finditer(BINDING.format(r"(# )?([\w/.]+\.\w+)"), resolved, re.M)
    values = {match[2]: match[3].strip() for match in found if defaults or not match[1]}
    if macros:
        known = macros_in(resolved)
        for _ in known:  # The value of a macro may be another one.
            for name, value in values.items():
                values[name] = re.sub(r"%(\w+)", lambda match: known.get(match[1], match[0]), value)
    return values


def macros_in(resolved: str) -> dict[str, str]:
    """Macro -> value, both as written."""
    found = re.finditer(BINDING.format(r"(\w+)"), resolved, re.M)
    return {match[1]: match[2].strip() for match in found}


def is_same_measurement(resolved: str, other: str) -> bool:
    """Whether two resolved configurations differ at most in the stages of a training."""
    values, others = (
        {
            name: value
            for name, value in parameter_values(text, macros=True).items()
            if not name.startswith("experiment.")
        }
        for text in (resolved, other)
    )
    return values == others


def changed_setting(before: str, after: str, *, ignored: tuple[str, ...]) -> str | None:
    """The first setting, in alphabetical order, that differs between two configurations.

    Args:
      before, after: resolved configurations.
      ignored: prefixes of the names of settings that may differ.

    Returns:
      "name = value instead of value", or None.
    """
    old, new = (parameter_values(text, macros=True) for text in (before, after))
    # A parameter that is newer than the run has its default, which is what the run did.
    added = new.keys() - old.keys() - parameter_values(after, defaults=False).keys()
    # So are the standard heads, which base.gin names since 0.3.
    heads = {
        name
        for name in new.keys() - old.keys()
        if re.fullmatch(r".*\.(\w+_head) = @(\w+/)?models\.\1", f"{name} = {new[name]}")
    }
    for name in sorted((old.keys() | new.keys()) - added - heads):
        if old.get(name) != new.get(name) and not name.startswith(ignored):
            return f"{name} = {old.get(name)} instead of {new.get(name)}"
    return None


def upgraded(text: str) -> str:
    """Converts a config.gin of version 0.1 to current names and scopes; other text is unchanged.

    In 0.1, linear/ and finetune/ inherited every unset parameter from the name without a scope.
    """
    if "from supcon_tf.data import batches\n" not in text:
        return text
    for old, new in _RENAMED:
        text = re.sub(old, new, text)
    lines = [text.rstrip()]
    for stage in ("linear", "finetune"):
        values = parameter_values(text)
        given = parameter_values(text, defaults=False)
        for own in sorted(set(re.findall(rf"@{stage}/([\w.]+)", text))):
            for name, value in values.items():
                if name.startswith(f"{own}.") and f"{stage}/{name}" not in values:
                    lines.append(f"{'' if name in given else '# '}{stage}/{name} = {value}")
    return "\n".join([*lines, ""])


_RENAMED = (
    (r"from supcon_tf\.data import batches", "from supcon_tf.data import pipeline"),
    (r"from supcon_tf\.data import corrupted", "from supcon_tf.data import corruptions"),
    (r"from supcon_tf\.methods import", "from supcon_tf.models import"),
    (r"from supcon_tf\.stages import study", "from supcon_tf.studies import study"),
    (r"(?<![\w.])batches\.(?=\w)", "pipeline."),
    (r"(?<![\w.])corrupted\.(?=\w)", "corruptions."),
    (r"\bviews\.Preprocessing\.whitening\b", "views.Preprocessing.normalization"),
    # Augmentations and losses now have the scope of their stage.
    (r"(?m)^(linear|finetune)(\.run\.(?:augmentation|loss) = )@(?!\1/)", r"\1\2@\1/"),
)
