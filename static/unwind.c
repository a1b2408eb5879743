/* Stands in for an unwinder, which the standard library wants to link with. The static programs end
 * at a panic, after its message; only the list of callers would need one, and a stripped program
 * has no names for it. */
