"""Every setting of a run: its type, its one line, and whether it decides which run it is.

`run`, `dataset`, `method`, `backbone`, `task`, `match` and `engine` declare the settings of one group each, in a class
with a line under each setting; `arguments` has what constructors share.  `kinds` has the types and the marks
that a declaration may carry, `check` holds values against them, `explain` tells them to a person.  `config` puts a run's
settings together, each group of its own class, once they are checked.

Declarations are plain types: importing them costs nothing, and pydantic is imported once a value is checked.
"""
