// Read every dataset and attribute of some files with h5wasm; print how many there are.
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const folder = join(process.env.RESUMABLE_H5WASM, "node_modules", "h5wasm");
const h5wasm = await import(pathToFileURL(join(folder, "dist", "node", "hdf5_hl.js")));
await h5wasm.ready;

function read(group) {
  let count = Object.values(group.attrs).map((one) => one.value).length;
  for (const name of group.keys()) {
    const thing = group.get(name);
    if (thing instanceof h5wasm.Group) {
      count += read(thing);
    } else {
      thing.value;
      count += 1 + Object.values(thing.attrs).map((one) => one.dtype).length;
    }
  }
  return count;
}

const counts = process.argv.slice(2).map((path) => {
  const file = new h5wasm.File(path, "r");
  const count = read(file);
  file.close();
  return count;
});
console.log(JSON.stringify(counts));
