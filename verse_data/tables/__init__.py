"""The three joined tables, their findings, queries on them, splits and folds."""
