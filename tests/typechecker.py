"""How annotations are enforced while the tests run: jaxtyping's import hook calls `checked` on every function."""

from beartype import BeartypeConf, beartype

# PEP 484's numeric tower: an int passes where a float is asked for, as every type checker has it.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
