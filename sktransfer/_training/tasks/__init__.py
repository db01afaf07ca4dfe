"""What training learns: each kind of target is one file, which holds all that training needs of it.

A kind says how outputs are compared with targets (the loss), how a linear head is solved, how samples are held out, and
what is recorded of them. A new kind is a file beside these, and an estimator on top that reads its y.
"""
