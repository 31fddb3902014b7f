// Runs the extension for VS Code with a `vscode` and a client that do what it asks for and no more: node extension.js EXTENSION COMMAND.
// Prints as JSON what was shown and registered. The client starts the server as `vscode-languageclient` does: a transport becomes an argument.
const { spawn } = require("child_process"), Module = require("module");
const [, , extension, command] = process.argv;
const TEXT = "use std { Linear }\nmodel Net(d: int = 8)(x: [B, d]) -> y: [B, d] { return Linaer(d)(x) as a }\n";
const seen = { diagnostics: [], errors: [], commands: [], exits: [] };
const disposable = { dispose() {} };

class LanguageClient {
  constructor(id, name, server, options) { Object.assign(this, { server, options, waiting: {}, number: 0 }); }
  start() {
    const flags = { 0: ["--stdio"] }[this.server.transport] ?? [];
    return new Promise((resolve, reject) => {
      this.process = spawn(this.server.command, [...this.server.args, ...flags], { stdio: ["pipe", "pipe", "inherit"] });
      this.ended = new Promise((end) => this.process.on("exit", end));
      this.process.on("error", reject);
      this.process.stdin.on("error", reject);
      this.ended.then((code) => reject(new Error(`exit ${code}`)));
      let data = Buffer.alloc(0);
      this.process.stdout.on("data", (piece) => {
        data = Buffer.concat([data, piece]);
        for (let head; (head = data.indexOf("\r\n\r\n")) >= 0;) {
          const size = Number(/Content-Length: (\d+)/i.exec(data.subarray(0, head))[1]);
          if (data.length < head + 4 + size) return;
          const message = JSON.parse(data.subarray(head + 4, head + 4 + size));
          data = data.subarray(head + 4 + size);
          if (message.method === "textDocument/publishDiagnostics") { seen.diagnostics.push(...message.params.diagnostics.map((d) => d.code)); resolve(); }
          else if (message.id !== undefined && !message.method) this.waiting[message.id]?.(message.result);
        }
      });
      this.ask("initialize", { processId: null, rootUri: null, capabilities: {} }).then(() => {
        this.tell("initialized", {});
        const textDocument = { uri: "file:///work/net.arch", languageId: "archdsl", version: 1, text: TEXT };
        if (this.options.documentSelector.some((d) => d.language === "archdsl")) this.tell("textDocument/didOpen", { textDocument });
      }, reject);
    });
  }
  write(message) {
    const body = Buffer.from(JSON.stringify({ jsonrpc: "2.0", ...message }));
    this.process.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
    this.process.stdin.write(body);
  }
  tell(method, params) { this.write({ method, params }); }
  ask(method, params) { return new Promise((resolve) => { const id = ++this.number; this.waiting[id] = resolve; this.write({ id, method, params }); }); }
  async stop() {
    await this.ask("shutdown", null);
    this.tell("exit", null);
    seen.exits.push(await this.ended);
  }
}

const vscode = {
  workspace: { getConfiguration: (section) => ({ get: (key) => `${section}.${key}` === "archdsl.command" ? command : undefined }),
    onDidChangeConfiguration: () => disposable },
  window: { showErrorMessage: (text) => { seen.errors.push(text); } },
  commands: { registerCommand: (name, run) => { seen.commands.push(name); vscode.run = run; return disposable; } },
};
const load = Module._load, mocks = { vscode, "vscode-languageclient/node": { LanguageClient, TransportKind: { stdio: 0 } } };
Module._load = (name, ...rest) => mocks[name] ?? load(name, ...rest);
(async () => {
  const { activate, deactivate } = require(extension);
  await activate({ subscriptions: [] });
  await deactivate();
  console.log(JSON.stringify(seen));
})();
