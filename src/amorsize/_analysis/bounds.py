"""
How much of a function, and of what it reaches, is looked at.

All of it is counted and not timed: what is found must not depend on how busy the machine is. Each number trades the
time of a first call against answers, and is a choice, not a fit. Beyond a bound of the first two sections the answer is
"not known", so that the items are observed or no fork is used. Half: this is so for more functions. Twice: the first
look at a large function takes up to twice as long.
"""

from __future__ import annotations

from typing import Final

# -- following code ----------------------------------------------------------------------------------------------------

# Instructions followed, and values handed to calls, in one function and those of the program that it calls, all
# together: up to 0.2 s, less than 1 ms for ordinary functions. A collection of garbage in a large program takes 0.1 s
# by itself. The code of libraries is counted apart. What proves anything takes less than 1,000 steps there; what is
# deeper (Rich, Pillow, Polars: 20,000 steps were not enough, and took 0.5 s) ends unproved, after up to 0.1 s.
MOST_STEPS: Final = 20_000
MOST_LIBRARY_STEPS: Final = 3_000

# Functions followed into one another, and calls of any kind. Deeper ones are recursions, or frameworks.
MOST_DEPTH: Final = 12
MOST_NESTED: Final = 60

# How often a function may be followed into itself before what it returns is taken to be a part of what it is given.
MOST_RECURSION: Final = 3

# Values that one place may stand for. Where a call is given as many, some may have been left out.
MOST_VALUES: Final = 32

# Objects in one value that are looked at for what a part of it may be, and values of one container among them.
MOST_WITHIN: Final = 400
MOST_EACH_WITHIN: Final = 64

# Objects of one class that stand for all of them: their methods are the same code.
MOST_ALIKE: Final = 3

# Of objects written in Python, the fewest values that stand for all their arguments.
MOST_ARGUMENTS: Final = 6

# Subclasses of an abstract class that are asked for a hook of their own: it asks them in turn.
MOST_SUBCLASSES: Final = 200

# -- walking through objects -------------------------------------------------------------------------------------------

# Objects looked at in one walk: about 1 us each, so 10 ms.
MOST_OBJECTS: Final = 10_000

# Values of one container whose types are compared at once: 20 ns each, so 2 ms. So many of them count as one object.
MOST_TYPES: Final = 100_000
TYPES_AS_OBJECT: Final = 64

# Values of one container that are looked at one by one.
MOST_EACH: Final = 2_000

# Values of a container up to which each of them is compared.
SHORT: Final = 64

# Functions whose latest look is kept. Half or twice: more or fewer are looked at again in a program with that many.
MOST_KNOWN: Final = 256

# Values of one item that are looked at for what it holds, and kinds of them in all. Where there are more kinds, it is
# not known what the function changes.
MOST_HELD: Final = 8
MOST_PARTS: Final = 16

# Items of a list whose types are compared, and values that they hold: 20 ns for a number, 250 ns for a tuple of two, so
# 3 ms at most. Of longer lists every second, third and so on.
MOST_TYPED: Final = 10_000

# Values that items hold in attributes whose types are compared: 0.1 us each with the object, so 3 ms at most.
MOST_ATTRIBUTES: Final = 30_000

# -- observing items ---------------------------------------------------------------------------------------------------

# What lies beyond these bounds is not compared, so that a change there is not seen. Half: more such changes are missed.
# Twice: comparing large data takes twice as long, before and after the sample.

# Bytes of an array or a buffer that are compared whole: 1 ms for a megabyte. Of larger ones both ends are.
WHOLE_BYTES: Final = 1 << 20
END_BYTES: Final = 4096

# Values of a container that are compared one by one; of longer ones both ends are, and the length.
MOST_COMPARED: Final = 512

# Values that are looked at in one item: arguments are few, and data is many. How deep, and how many values at each
# depth: an object in an attribute of an item is at the second.
MOST_IN_ITEM: Final = 16
MOST_DEEP: Final = 4
MOST_LAYER: Final = 64

# Iterators in one another that are followed to what they read from.
MOST_NESTED_ITERATORS: Final = 12

# Bytes of a pickled object of a type that only its pickle tells about.
PICKLED_BYTES: Final = 1 << 16
