// Figures as text.

/** A size in bytes, with two to four digits. */
export const bytes = (n) => {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${unit > 0 && n < 99.95 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
};

export const rate = (n) => (Number.isFinite(n) ? `${bytes(n)}/s` : "–");

/** Rounded down: 100 % means all of it. */
export const percent = (share) => (Number.isFinite(share) ? `${Math.floor(share * 100)} %` : "–");

export const time = (seconds) => {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
};

/** `1 node`, `2 nodes`. */
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
