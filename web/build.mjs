// Bundles the page into dist/, which is committed: building the C++ side needs no Node.
// --check compares with what is committed instead of writing it.
import { build } from "esbuild";
import { readFile, writeFile, mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import path from "node:path";

const root = path.dirname(fileURLToPath(import.meta.url));
const result = await build({
  absWorkingDir: root,
  entryPoints: { app: "src/main.ts", style: "src/style.css" },
  outdir: "dist",
  bundle: true,
  minify: true,
  write: false,
  format: "iife",
  target: ["es2022", "chrome110", "firefox110", "safari16"],
  charset: "utf8",
  legalComments: "none",
});
const files = new Map(result.outputFiles.map((file) => [path.basename(file.path), file.text]));
for (const name of ["index.html", "icon.svg"]) files.set(name, await readFile(path.join(root, "src", name), "utf8"));

if (process.argv.includes("--check")) {
  for (const [name, text] of files) {
    const committed = await readFile(path.join(root, "dist", name), "utf8").catch(() => "");
    if (committed !== text) {
      console.error(`web/dist/${name} is not what the sources give; run: npm run build`);
      process.exitCode = 1;
    }
  }
} else {
  await mkdir(path.join(root, "dist"), { recursive: true });
  for (const [name, text] of files) await writeFile(path.join(root, "dist", name), text);
  console.log([...files].map(([name, text]) => `${name} ${text.length} bytes`).join(", "));
}
