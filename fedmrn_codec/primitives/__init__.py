"""Random words, noise, masks and element types (spec 2 to 4 and 5.3), and checks of arguments.

May import `errors`.
"""
