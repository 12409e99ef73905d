"""What everything else is made of: random words, noise, masks, element types, argument checks.

These modules follow sections 2 to 4 of the specification and import nothing of this package but `errors`.
"""
