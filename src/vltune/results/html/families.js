// Of which family methods are wanted, and what a family is called.

let family = ""; // all
const isWanted = (row) => !family || row.families.includes(family);
const spoken = (name) => name.replaceAll("_", " ");
const familiesOf = (tables) => [...new Set(tables.flatMap(({ rows }) => rows.flatMap((row) => row.families)))];
