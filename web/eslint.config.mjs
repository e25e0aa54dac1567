// Strict rules of the TypeScript plug-in, and one of our own: names and arguments in a trace are
// written by strangers, so nothing may ever be inserted as markup.
import tseslint from "typescript-eslint";

const noMarkup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "write", "writeln", "srcdoc"].map((property) => ({
  object: property.startsWith("write") ? "document" : undefined,
  property,
  message: "use textContent: strings of a trace are not ours",
}));

export default tseslint.config(
  { ignores: ["dist", "node_modules"] },
  ...tseslint.configs.strict,
  {
    rules: {
      eqeqeq: "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-restricted-properties": ["error", ...noMarkup.map((rule) => JSON.parse(JSON.stringify(rule)))],
    },
  },
);
