{
  description = "Velocity: the schema-driven backend on Postgres and Kubernetes";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      images = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      over = names: make: nixpkgs.lib.genAttrs names (system: make nixpkgs.legacyPackages.${system});
      forEach = over systems;
      version = (nixpkgs.lib.importJSON ./package.json).version;

      # The packages that run, as the lockfile pins them. The lockfile names no registry, so the hash of what npm makes of it
      # stands here; .ci/flake computes it and says when it is another.
      dependencies =
        pkgs:
        pkgs.stdenvNoCC.mkDerivation {
          pname = "velocity-dependencies";
          inherit version;
          src = pkgs.lib.fileset.toSource {
            root = ./.;
            fileset = pkgs.lib.fileset.unions [
              ./package.json
              ./package-lock.json
              ./.npmrc
            ];
          };
          nativeBuildInputs = [
            pkgs.nodejs_24
            pkgs.cacert
          ];
          buildPhase = ''
            export HOME=$TMPDIR
            npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund
            # what npm notes for itself differs from one npm to the next
            rm node_modules/.package-lock.json
          '';
          installPhase = ''
            mkdir $out
            cp -r node_modules $out/
          '';
          dontFixup = true;
          outputHashMode = "recursive";
          outputHash = "sha256-OLXFZHX6BmvxMKC0zcZ85ZO92rYTrpME1oOVazFWtrE=";
        };

      # The same files as in the Dockerfile's image. nixpkgs' TypeScript emits what ours does, and checks nothing here:
      # .ci/run does.
      velocity =
        pkgs:
        pkgs.stdenvNoCC.mkDerivation {
          pname = "velocity";
          inherit version;
          src = pkgs.lib.fileset.toSource {
            root = ./.;
            fileset = pkgs.lib.fileset.unions [
              ./bin
              ./src
              ./migrations
              ./package.json
              ./tsconfig.json
              ./tsconfig.build.json
              ./LICENSE
            ];
          };
          nativeBuildInputs = [
            pkgs.typescript
            pkgs.makeWrapper
          ];
          buildPhase = ''
            echo '{"extends":"./tsconfig.build.json","compilerOptions":{"types":[],"noCheck":true,"declaration":false}}' > tsconfig.image.json
            tsc -p tsconfig.image.json
          '';
          installPhase = ''
            mkdir -p $out/lib/velocity $out/bin
            cp -r bin dist migrations package.json LICENSE $out/lib/velocity/
            ln -s ${dependencies pkgs}/node_modules $out/lib/velocity/node_modules
            makeWrapper ${pkgs.nodejs_24}/bin/node $out/bin/velocity --add-flags $out/lib/velocity/bin/velocity.js
          '';
        };
    in
    {
      # `nix build .#image && docker load < result`: one image with three commands, as uid 65532.
      packages = over images (pkgs: rec {
        default = velocity pkgs;
        image = pkgs.dockerTools.buildLayeredImage {
          name = "velocity";
          tag = version;
          contents = [ default ];
          config = {
            Entrypoint = [ "velocity" ];
            User = "65532:65532";
            WorkingDir = "/";
            Env = [
              "NODE_ENV=production"
              "PATH=/bin"
            ];
          };
        };
      });

      # `nix develop`: Node 24, a psql and pgbench to look inside and to measure against, and what .ci/run calls.
      devShells = forEach (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.nodejs_24
            pkgs.postgresql_18
            pkgs.kubectl
            pkgs.git
            pkgs.curl
            pkgs.jq
          ];
        };
      });

      formatter = forEach (pkgs: pkgs.nixfmt-rfc-style);
    };
}
