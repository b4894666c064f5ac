// Runs one scenario to its end, and says whether it passed.
//
// Lives here: the way in.
// Called by: tests/src/scenario.rs, with the file of a scenario and its name; the servers are in the environment.
// Must not know: what is tried.

const [, , file, name] = process.argv;
const scenario = (await import(`./${file}.mjs`))[name];
if (!scenario) throw new Error(`${file}.mjs has no ${name}`);
await scenario();
process.stdout.write('passed\n', () => process.exit(0));
