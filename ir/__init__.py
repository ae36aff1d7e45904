"""What a program is: types, SSA, one definition per op, text form, verifier, interpreter."""
