"""The array functions, by the names of the Array API standard."""
